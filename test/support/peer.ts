/** A peer in the hands of a test: it pairs with a sidecar as any relay does, and then may send whatever it likes. */
import { randomBytes } from 'node:crypto'
import http from 'node:http'
import type { RequestHead } from '../../sidecar/call.ts'
import { beginRequest, encodeRequest } from '../../sidecar/http/bhttp.ts'
import { initiate } from '../../sidecar/pair/handshake.ts'
import {
  type MessageId,
  type MessageKeys,
  openResponse,
  RESPONSE_HEADER_BYTES,
  sealRequest,
} from '../../sidecar/pair/message.ts'
import { BlockKeys, firstChainKey, nextBlock } from '../../sidecar/pair/ratchet.ts'
import { echoOf, parseReject, type RejectName } from '../../sidecar/pair/reject.ts'
import { type MeshSecret, meshSecret } from '../../sidecar/pair/secrets.ts'
import { sealOpening } from '../../sidecar/pair/tunnel-keys.ts'
import { SECRET } from './sidecars.ts'

export interface Posted {
  status: number
  headers: http.IncomingHttpHeaders
  body: Buffer
}

export const HEAD: RequestHead = {
  method: 'POST',
  scheme: 'http',
  authority: 'billing',
  path: '/planted',
  fields: [],
}

/** Posts bytes to a port, in the pieces given. */
export function post(port: number, path: string, ...pieces: Buffer[]): Promise<Posted> {
  return new Promise((resolve, reject) => {
    const request = http.request({ host: '127.0.0.1', port, path, method: 'POST' }, async (response) => {
      const body: Buffer[] = []
      try {
        for await (const piece of response) body.push(piece)
        resolve({ status: response.statusCode!, headers: response.headers, body: Buffer.concat(body) })
      } catch (error) {
        reject(error)
      }
    })
    request.on('error', reject)
    for (const piece of pieces) request.write(piece)
    request.end()
  })
}

/** A pair with a sidecar, of which the test chooses block and index of each message. */
export class TestPeer {
  readonly #port: number
  readonly #secret: MeshSecret
  readonly #pairId: Buffer
  readonly #chunkBytesMax: number
  readonly #blocks: BlockKeys[] = []

  private constructor(
    port: number,
    secret: MeshSecret,
    pair: { id: Buffer; secret: Buffer; chunkBytesMax: number },
    blocks: number,
  ) {
    this.#port = port
    this.#secret = secret
    this.#pairId = pair.id
    this.#chunkBytesMax = pair.chunkBytesMax
    let chainKey = firstChainKey(pair.secret)
    for (let block = 0; block < blocks; block++) {
      const { blockSecret, nextChainKey } = nextBlock(chainKey, block)
      this.#blocks.push(new BlockKeys(blockSecret))
      chainKey = nextChainKey
    }
  }

  /** Pairs with the sidecar whose inbound port this is. */
  static async pair(port: number, clientIdSecret = SECRET): Promise<TestPeer> {
    const secret = await meshSecret(clientIdSecret, 'tester')
    const identity = { name: 'tester', secrets: [secret] }
    const { hello, finish } = initiate(identity, {
      secret,
      responderName: '',
      random: randomBytes,
      now: Date.now(),
    })
    const { body } = await post(port, '/api/mte-pair', hello)
    return new TestPeer(port, secret, finish(body), 80)
  }

  /** A message of this pair, and what seals it. */
  message(index: number, block = 0): { id: MessageId & MessageKeys } & ReturnType<typeof sealRequest> {
    const { request: requestKey, response: responseKey } = this.#blocks[block]!.keys(index)
    const id = {
      pairId: this.#pairId,
      block,
      index,
      requestKey,
      responseKey,
      chunkBytesMax: this.#chunkBytesMax,
    }
    return { id, ...sealRequest(id, randomBytes(12)) }
  }

  /** What opens a tunnel. */
  opening(index: number): Buffer {
    return sealOpening(this.message(index).id, randomBytes(12))
  }

  /** A whole message: a POST with a body. */
  whole(index: number, body = 'planted body', head = HEAD): Buffer {
    return this.message(index).sealer.end(encodeRequest(head, Buffer.from(body), []))
  }

  /** The start of a message whose body is still to come. */
  begun(index: number, head = HEAD) {
    const message = this.message(index)
    return { ...message, start: message.sealer.seal(beginRequest(head)) }
  }

  /** Sends a message as it is; what came of it is a reject, or the plaintext of a response. */
  async send(
    ...pieces: Buffer[]
  ): Promise<Posted & { reject: { name: RejectName; authentic: boolean } | undefined }> {
    const posted = await post(this.#port, '/api/mte-message', ...pieces)
    return {
      ...posted,
      reject: parseReject(posted.body, [this.#secret], echoOf(Buffer.concat(pieces), 'message')),
    }
  }

  /** Opens a response to a message; its plaintext is Binary HTTP. */
  open({ id, header }: { id: MessageId & MessageKeys; header: Buffer }, body: Buffer): Buffer {
    const opener = openResponse(id, header, body.subarray(0, RESPONSE_HEADER_BYTES))
    return Buffer.concat([...opener.push(body.subarray(RESPONSE_HEADER_BYTES)), opener.end()])
  }
}
