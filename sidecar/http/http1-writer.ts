/** The parts of messages as HTTP/1.1 writes them (RFC 9112), the same for requests and for answers. */
import type { Writable } from 'node:stream'
import type { Fields } from '../call.ts'
import { HeadError, NAME, UNFIT_IN_VALUE } from './fields.ts'

/** Up to this size, in bytes, bytes cost less as a part of the text in front of them than as a buffer behind it. */
const SHORT_BYTES_MAX = 8 * 1024

/**
 * The field lines of a head or a trailer section, each with the CRLF at its end.
 * @throws HeadError malformed, for a field that would be read as something else than itself
 */
export function fieldLines(fields: Fields): string {
  let lines = ''
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!
    const value = fields[i + 1]!
    if (!NAME.test(name) || UNFIT_IN_VALUE.test(value))
      throw new HeadError('malformed', 'A field holds what none may hold.')
    lines += `${name}: ${value}\r\n`
  }
  return lines
}

/** What ends a body in chunks (RFC 9112 section 7.1). @throws HeadError as fieldLines does */
export function lastChunk(trailers: Fields): string {
  return `0\r\n${fieldLines(trailers)}\r\n`
}

/**
 * Writes a piece of a body, of one byte or more, as a chunk.
 * @returns as the stream's own `write` does
 */
export function writeChunk(stream: Writable, piece: Buffer): boolean {
  return writeTogether(stream, `${piece.length.toString(16)}\r\n`, piece, '\r\n')
}

/**
 * Writes bytes with the text around them, which is in Latin-1, at once: in one system call where the other end keeps up.
 * @param onWritten called once all of it has left
 * @returns as the stream's own `write` does
 */
export function writeTogether(
  stream: Writable,
  before: string,
  bytes: Buffer,
  after = '',
  onWritten?: () => void,
): boolean {
  if (bytes.length <= SHORT_BYTES_MAX)
    return stream.write(before + bytes.toString('latin1') + after, 'latin1', onWritten)
  stream.cork()
  stream.write(before, 'latin1')
  let flows = stream.write(bytes, after === '' ? onWritten : undefined)
  if (after !== '') flows = stream.write(after, 'latin1', onWritten)
  stream.uncork()
  return flows
}
