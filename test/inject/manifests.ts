/** Manifests, injected into. */
import assert from 'node:assert/strict'
import { type InjectOptions, inject } from '../../sidecar/inject/inject.ts'

export const PLAIN: InjectOptions = { defaults: {}, services: false }

/** @throws Error when it is refused */
export function manifestOf(source: string, options = PLAIN): string {
  const { manifest, messages } = inject(source, 'app.yaml', options)
  return manifest ?? assert.fail(messages.join('\n'))
}

export function messagesOf(source: string, options = PLAIN): string[] {
  return inject(source, 'app.yaml', options).messages
}
