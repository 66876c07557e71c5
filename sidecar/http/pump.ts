import type { Writable } from 'node:stream'
import type { Body } from '../call.ts'
import { SidecarError } from '../errors.ts'
import type { Alive } from './stream-body.ts'

/** A body up to this size that has arrived is sent in one piece with its head, in bytes. */
export const WHOLE_BYTES_MAX = 64 * 1024

/**
 * Writes a body to a stream, as fast as the stream takes it.
 *
 * What would complete the message for its receiver is kept back until the body's end is certain: the piece that
 * reaches an announced length is not written, but returned for the caller to end the stream with.
 * @param length the announced Content-Length, if there is one
 * @param write writes a piece in the framing of the stream, and returns as its own `write` does
 * @throws SidecarError as the body does, or `caller-gone` when the stream closed
 */
export async function pump(
  body: Body,
  stream: Writable,
  length: number | undefined,
  alive: Alive | undefined,
  write: (stream: Writable, piece: Buffer) => boolean = writePlain,
): Promise<Buffer | undefined> {
  let left = length ?? Number.POSITIVE_INFINITY
  let kept: Buffer | undefined
  for (;;) {
    const piece = await body.read()
    if (piece === undefined) {
      if (length !== undefined && left > 0) throw lengthDiffers()
      return kept
    }
    if (piece.length === 0) continue
    // A stream that is destroyed would take whatever is written, and drop it.
    if (stream.destroyed) throw closed()
    left -= piece.length
    if (left < 0) throw lengthDiffers()
    if (left === 0) {
      kept = piece
      continue
    }
    alive?.touch()
    if (!write(stream, piece)) await drained(stream)
    alive?.touch()
  }
}

function writePlain(stream: Writable, piece: Buffer): boolean {
  return stream.write(piece)
}

/** Waits for the clean end of a body that must be empty. */
export async function expectEnd(body: Body): Promise<void> {
  if ((await body.read()) !== undefined) {
    throw new SidecarError('message-truncated', 'There is a body where none may be.')
  }
}

function drained(stream: Writable): Promise<void> {
  return new Promise((resolve, reject) => {
    const onDrain = () => {
      stream.off('close', onClose)
      resolve()
    }
    const onClose = () => {
      stream.off('drain', onDrain)
      reject(closed())
    }
    stream.once('drain', onDrain)
    stream.once('close', onClose)
    if (stream.destroyed) onClose()
  })
}

function closed(): SidecarError {
  return new SidecarError('caller-gone', 'The stream closed while it was written.')
}

/** What is told of a body that would end too early, or be taken for the next message, behind its head. */
export function lengthDiffers(): SidecarError {
  return new SidecarError('message-truncated', 'The body is not as long as its Content-Length says.')
}
