import assert from 'node:assert/strict'
import net from 'node:net'
import { accepts, ownAddresses, placeOf } from '../../sidecar/check/places.ts'
import { listen, unusedPort } from '../support/sidecars.ts'
import { suite } from '../support/suite.ts'

const test = suite('places')

test('loopback, this machine, another one and nowhere are told apart, with brackets and without', async () => {
  for (const host of ['localhost', '127.0.0.1', '127.9.9.9', '::1', '[::1]'])
    assert.equal(await placeOf(host), 'loopback', host)
  for (const address of ownAddresses()) assert.equal(await placeOf(address), 'here', address)
  for (const host of ['203.0.113.1', '[2001:db8::1]']) assert.equal(await placeOf(host), 'elsewhere', host)
  assert.equal(await placeOf('nowhere.invalid'), 'unknown')
})

test('a port on which somebody listens takes connections, and another one does not', async () => {
  const server = net.createServer((socket) => socket.end())
  const port = await listen(server)
  assert.ok(await accepts('127.0.0.1', port))
  server.close()
  assert.ok(!(await accepts('127.0.0.1', await unusedPort())))
})

test.run()
