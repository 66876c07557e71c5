/** A whole exchange in a tunnel, record by record, and what must kill one. */
import { createSecretKey } from 'node:crypto'
import type { MessageId, MessageKeys } from '../../sidecar/pair/message.ts'
import { hex, vectors } from './vectors.ts'

export type Side = 'initiator' | 'responder'

/** A frame in clear; byte strings in hex, text as Latin-1. */
export interface FrameVector {
  type: string
  call: number
  end?: boolean
  method?: string
  scheme?: string
  authority?: string
  path?: string
  status?: number
  fields?: [string, string][]
  payload?: string
  credit?: number
  calls?: number
  code?: number
  bytes_more?: number
  highest?: number
  bytes: string
}

export interface RecordVector {
  what: string
  from: Side
  generation: number
  n: number
  frames: FrameVector[]
  record: string
}

interface TunnelVectors {
  pair_id: string
  pair_secret: string
  block: number
  index: number
  H: string
  req_key: string
  res_key: string
  open: string
  salt: string
  answer: string
  transcript_hash: string
  out_0: string
  in_0: string
  out: { secret: string; key: string; iv: string }[]
  in: { secret: string; key: string; iv: string }[]
  exchange: RecordVector[]
  refused: { what: string; from: Side; plaintext: string }[]
}

export const tunnel = vectors<TunnelVectors>('tunnel.json')

/** What the opening of the vectors is sealed with. */
export const opener: MessageId & MessageKeys = {
  pairId: hex(tunnel.pair_id),
  block: tunnel.block,
  index: tunnel.index,
  requestKey: createSecretKey(hex(tunnel.req_key)),
  responseKey: createSecretKey(hex(tunnel.res_key)),
  chunkBytesMax: 65_536,
}

/** The records of one side, in their order. */
export function recordsOf(side: Side): RecordVector[] {
  return tunnel.exchange.filter(({ from }) => from === side)
}

/** The frames of a record, one after the other. */
export function plaintextOf({ frames }: RecordVector): Buffer {
  return hex(frames.map(({ bytes }) => bytes).join(''))
}
