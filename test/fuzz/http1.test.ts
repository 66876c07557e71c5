import assert from 'node:assert/strict'
import { runs } from '../support/fuzz.ts'
import { suite } from '../support/suite.ts'
import { compareRequests, compareResponse } from './http1-differences.ts'
import { Counts, compareMutations, compareSeeds } from './http1-differential.ts'
import { Mutations } from './http1-mutations.ts'

const test = suite('fuzz/http1')

test('what is known to be read in two ways is read as node:http reads it, or refused', async () => {
  const counts = new Counts()
  await compareSeeds(counts)
  assert.ok(counts.takenByBoth > 200, `${counts.takenByBoth} were taken`)
  assert.ok(counts.refusedByBoth > 400, `${counts.refusedByBoth} were refused by both`)
})

test('whatever bytes come, they are read as node:http reads them, or refused', async () => {
  const { seed, numRuns } = runs(20_000)
  const counts = new Counts()
  await compareMutations(counts, new Mutations(seed), numRuns)
  assert.equal(counts.inputs, 2 * numRuns)
  assert.ok(counts.takenByBoth > numRuns / 20, `${counts.takenByBoth} were taken`)
})

test('plain messages are taken, one behind the other, with all that they say', async () => {
  const request = compareRequests(
    'POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX: y\r\n\r\nGET /b HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n',
  )
  const chunked = ['host', 'a', 'transfer-encoding', 'chunked']
  assert.deepEqual(request.byNode.messages, [
    { start: 'POST /a 1.1', fields: chunked, body: 'hi', trailers: ['x', 'y'], keepAlive: true, end: 75 },
    {
      start: 'GET /b 1.1',
      fields: ['host', 'b', 'connection', 'close'],
      body: '',
      trailers: [],
      keepAlive: false,
      end: 122,
    },
  ])
  assert.deepEqual(request.bySidecar, request.byNode)
  const response = await compareResponse(
    'GET',
    'HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi',
  )
  assert.deepEqual(response.byNode.messages, [
    { start: '103 1.1', fields: ['link', '<a>'], body: '', trailers: [], keepAlive: true, end: 39 },
    { start: '200 1.1', fields: ['content-length', '2'], body: 'hi', trailers: [], keepAlive: true, end: 79 },
  ])
  assert.deepEqual(response.bySidecar, response.byNode)
})

test.run()
