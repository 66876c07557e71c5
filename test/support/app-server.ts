import assert from 'node:assert/strict'
import type http from 'node:http'
import { once } from './call.ts'
import { type Server, startServer } from './sidecars.ts'

/** An app of which each test decides what it does. */
export interface AppServer extends Server {
  handler: http.RequestListener
  /** The next call, for the test to answer. */
  next(): Promise<[http.IncomingMessage, http.ServerResponse]>
}

/** Starts an app. */
export async function startAppServer(): Promise<AppServer> {
  const server = await startServer((request, response) => {
    request.on('error', () => {})
    app.handler(request, response)
  })
  const app: AppServer = {
    ...server,
    handler: (_request, response) => response.end(),
    next: () =>
      new Promise((resolve) => {
        app.handler = (request, response) => resolve([request, response])
      }),
  }
  return app
}

/** Resolves once the app knows that nobody waits for its answer any more. */
export async function abandoned(response: http.ServerResponse): Promise<void> {
  if (!response.closed) await once(response, 'close')
  assert.equal(response.writableFinished, false)
}
