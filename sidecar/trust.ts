import tls, { type SecureContext } from 'node:tls'

const NO_OTHERS: readonly string[] = []
/** By the list that they were made for: reading some hundred certificates takes a while. */
const contexts = new WeakMap<readonly string[], SecureContext>()

/**
 * What a client trusts: the authorities of the system and of Node, and these.
 * @param ca PEM certificates
 */
export function trusting(ca: readonly string[] = NO_OTHERS): SecureContext {
  let context = contexts.get(ca)
  if (!context) {
    const all = new Set([...tls.getCACertificates('default'), ...tls.getCACertificates('system'), ...ca])
    context = tls.createSecureContext({ ca: [...all] })
    contexts.set(ca, context)
  }
  return context
}
