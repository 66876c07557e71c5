/** The plain port of the injector, for the kubelet and for Prometheus: /livez, /readyz and /metrics. */
import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { prometheusText, watchProcess } from '../telemetry/prometheus.ts'
import type { Webhook } from './webhook.ts'

const REQUEST_DEADLINE_MS = 5_000

/** Answers there until the process ends. @returns the port */
export async function startProbes(
  webhook: Pick<Webhook, 'notReady' | 'families'>,
  port: number,
): Promise<number> {
  watchProcess()
  const server = http.createServer({ requestTimeout: REQUEST_DEADLINE_MS }, async (request, response) => {
    const { status, type, body } = await answer(request, webhook)
    response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' }).end(body)
  })
  server.listen(port)
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

async function answer(
  { method, url, headers }: http.IncomingMessage,
  webhook: Pick<Webhook, 'notReady' | 'families'>,
): Promise<{ status: number; type: string; body: string }> {
  const path = method === 'GET' || method === 'HEAD' ? url?.split('?')[0] : undefined
  if (path === '/livez') return json(200, { status: 'alive' })
  if (path === '/readyz') {
    const reasons = webhook.notReady()
    const ready = reasons.length === 0
    return json(ready ? 200 : 503, { status: ready ? 'ready' : 'not ready', reasons })
  }
  if (path === '/metrics') {
    const { contentType, body } = await prometheusText(await webhook.families(), headers.accept ?? '')
    return { status: 200, type: contentType, body }
  }
  return json(404, { error: 'Here are /livez, /readyz and /metrics.' })
}

function json(status: number, value: object): { status: number; type: string; body: string } {
  return { status, type: 'application/json', body: `${JSON.stringify(value)}\n` }
}
