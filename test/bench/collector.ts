/** A collector of traces that takes everything in, counts the spans and drops them: in this process, which is charged to no pair. */
import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'

/** Numbers of the fields that lead from an ExportTraceServiceRequest to its spans: resource_spans, scope_spans, spans. */
const PATH_TO_SPANS = [1, 2, 2]

export interface Collector {
  /** @returns what a pair takes as OTEL_EXPORTER_OTLP_ENDPOINT, for http/protobuf */
  endpoint(pair: string): string
  /** @returns how many spans of a pair have arrived so far */
  spans(pair: string): number
}

export async function startCollector(): Promise<Collector> {
  const counts = new Map<string, number>()
  const server = http.createServer(async (request, response) => {
    const pair = request.url!.split('/')[1]!
    const spans = countSpans(await buffer(request), PATH_TO_SPANS)
    counts.set(pair, (counts.get(pair) ?? 0) + spans)
    response.writeHead(200, { 'content-type': 'application/x-protobuf' }).end() // empty: nothing was refused
  })
  server.unref()
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  return {
    endpoint: (pair) => `http://127.0.0.1:${port}/${pair}`,
    spans: (pair) => counts.get(pair) ?? 0,
  }
}

/** Counts what is at the end of a path of fields; all fields of the messages on the way are length-delimited. */
function countSpans(message: Buffer, [wanted, ...below]: number[]): number {
  if (wanted === undefined) return 1
  let spans = 0
  let at = 0
  const varint = () => {
    let value = 0
    for (let weight = 1; ; weight *= 128) {
      const byte = message[at++]!
      value += (byte & 127) * weight
      if (byte < 128) return value
    }
  }
  while (at < message.length) {
    const field = varint() >> 3
    const bytes = varint()
    if (field === wanted) spans += countSpans(message.subarray(at, at + bytes), below)
    at += bytes
  }
  return spans
}
