import type { Settings } from 'node:http2'
import { FIELDS_MAX } from './fields.ts'

/** How much may be under way on a whole connection before the other side takes it, in bytes. */
export const CONNECTION_WINDOW_BYTES = 16 * 1024 * 1024

/** What HTTP/2 counts for a field besides name and value, in bytes (RFC 9113 section 6.5.2). */
const FIELD_OVERHEAD_BYTES = 32
/** A head up to twice as long as it may be is read, so that it gets an answer and not a reset. */
const READ_FIELDS_MAX = 2 * FIELDS_MAX

/**
 * What each end of a connection tells the other, and limits of node:http2 that would cut off what is allowed here.
 *
 * Against floods its own limits stand: on resets of streams, invalid frames, rejected streams, pings and settings
 * that nobody acknowledged, and CONTINUATION frames.
 * @param headBytesMax names and values of one head, in bytes
 */
export function sessionOptions(headBytesMax: number): {
  settings: Settings
  maxHeaderListPairs: number
  maxSendHeaderBlockLength: number
  maxSessionMemory: number
  strictSingleValueFields: boolean
} {
  return {
    settings: {
      enablePush: false,
      initialWindowSize: 1024 * 1024,
      maxFrameSize: 1024 * 1024,
      maxConcurrentStreams: 1000,
      maxHeaderListSize: 2 * headBytesMax + READ_FIELDS_MAX * FIELD_OVERHEAD_BYTES,
    },
    maxHeaderListPairs: READ_FIELDS_MAX,
    maxSendHeaderBlockLength: 4 * headBytesMax,
    maxSessionMemory: 256,
    // Fields are passed on as they are: a second Content-Type is the app's affair.
    strictSingleValueFields: false,
  }
}
