/** Is the app there, is it an app, and does it take calls from its sidecar alone? */
import { Attempt, NO_BODY, type ResponseHead } from '../call.ts'
import type { Config } from '../config.ts'
import { SidecarError } from '../errors.ts'
import { field } from '../http/fields.ts'
import { Http1Client } from '../http/http1-client.ts'
import { SendError } from '../http/send-error.ts'
import { certificateAdvice } from './certificate-advice.ts'
import { type Finding, fail, note, ok, warn } from './finding.ts'
import { accepts, ownAddresses, placeOf, portOf, withBrackets } from './places.ts'

/** More of them say no more. */
const ADDRESSES_SHOWN = 3

export async function checkUpstream(config: Config): Promise<Finding[]> {
  const { upstream, connectTimeoutMs, responseTimeoutMs, maxHeaderBytes: headBytesMax, ca } = config
  if (upstream === undefined) return [note('UPSTREAM is not set: this sidecar is for outbound calls only.')]
  const url = new URL(upstream)
  const timeouts = { connectTimeoutMs, responseTimeoutMs }
  const client = new Http1Client(url, { headBytesMax, ...timeouts, ...(ca ? { ca } : {}) })
  try {
    const { status } = await headOf(client, '/')
    if (isOfSidecar(await headOf(client, '/api/mte-relay'))) {
      return [
        fail(
          `What answers at ${upstream} is a sidecar, maybe this one, and no app: calls end there.`,
          "UPSTREAM must hold the address and port of the app itself; peers' sidecars belong into PEERS.",
        ),
      ]
    }
    const answers = ok(`The app at ${upstream} answers (status ${status} to HEAD /).`)
    return [answers, ...(await checkReach(url, upstream))]
  } catch (error) {
    if (!(error instanceof SendError)) throw error
    return [
      fail(
        `The app at ${upstream} does not answer: ${error.message}.`,
        certificateAdvice(error) ?? 'Is it running, and does UPSTREAM hold its address and port?',
      ),
    ]
  } finally {
    client.close()
  }
}

async function headOf(client: Http1Client, path: string): Promise<ResponseHead> {
  const attempt = new Attempt()
  const head = { method: 'HEAD', scheme: 'http', authority: '', path, fields: [] }
  const answer = await client.send({ head, body: NO_BODY }, attempt)
  attempt.abandon(new SidecarError('caller-gone', 'Its head is all that matters.'))
  return answer.head
}

/** An app's own answer has neither. */
function isOfSidecar({ fields }: ResponseHead): boolean {
  return field(fields, 'mte-relay') !== undefined || field(fields, 'mte-error') !== undefined
}

/** Who else can reach the app, past its sidecar? */
async function checkReach(url: URL, upstream: string): Promise<Finding[]> {
  const place = await placeOf(url.hostname)
  if (place === 'elsewhere') {
    const plain = url.protocol === 'http:' ? 'calls travel there in plain, and ' : ''
    return [
      warn(
        `The app at ${upstream} is on another host: ${plain}whoever reaches its port needs no sidecar.`,
        'Run the sidecar beside the app, in one pod or ("network_mode: service:app" in Compose) on one network, or let a NetworkPolicy or firewall allow nobody but this sidecar there.',
      ),
    ]
  }
  const port = portOf(url)
  const addresses = ownAddresses()
  const accepted = await Promise.all(addresses.map((address) => accepts(address, port)))
  const open = addresses.filter((_, i) => accepted[i]).map((address) => `${withBrackets(address)}:${port}`)
  if (open.length === 0) return []
  const more = open.length > ADDRESSES_SHOWN ? ` and ${open.length - ADDRESSES_SHOWN} more` : ''
  return [
    warn(
      `The app's port is open on ${open.slice(0, ADDRESSES_SHOWN).join(', ')}${more} too: there anybody may call it, in plain and without the secret.`,
      'Let the app listen on 127.0.0.1 alone, or let a NetworkPolicy or firewall close that port to others.',
    ),
  ]
}
