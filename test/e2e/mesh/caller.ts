/**
 * The app that calls, in its pod. For each kind of traffic whose name it reads it makes the calls, and prints what it
 * saw of them as a line of JSON.
 *
 *     caller.ts PORT H2C_PORT AUTHORITY
 */
import http from 'node:http'
import { createInterface } from 'node:readline'
import { beginCall } from '../../support/app-client.ts'
import { call } from '../../support/call.ts'
import { KINDS, type Kind } from './kinds.ts'
import { KIND_FIELD, NUMBER_FIELD } from './seen.ts'

const [port, h2cPort, authority] = process.argv.slice(2) as [string, string, string]
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
for await (const line of createInterface({ input: process.stdin })) {
  const kind = KINDS.find(({ name }) => name === line)!
  const saw = await make(kind).catch((error: Error) => `failed: ${error.message}`)
  console.log(JSON.stringify({ kind: kind.name, saw }))
}

function make({ name, protocol = 'HTTP/1.1', call: makeCalls }: Kind): Promise<unknown> {
  let count = 0
  const marks = () => [KIND_FIELD, encodeURIComponent(name), NUMBER_FIELD, String(count++)]
  const to = Number(protocol === 'h2c' ? h2cPort : port)
  return makeCalls({
    begin: (head = {}) =>
      beginCall(protocol, to, { authority, ...head, fields: [...marks(), ...(head.fields ?? [])] }),
    again: (options) => call(to, { ...options, agent, headers: ['host', authority, ...marks()] }),
  })
}
