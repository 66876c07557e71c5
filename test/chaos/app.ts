/** The app that the load calls. */
import type http from 'node:http'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'

/** It takes up to so long: calls that have been executed and not answered are what is hard. */
const APP_MS_MAX = 20

/** @param onExecuted gets the id of each call, as often as it is executed */
export function countingApp(onExecuted: (id: string) => void): http.RequestListener {
  return async (request, response) => {
    const isGet = request.method === 'GET'
    // A body that is cut off is no call.
    const id = isGet ? path.basename(request.url!) : await text(request).catch(() => undefined)
    if (id === undefined) return
    onExecuted(id)
    await sleep(Math.random() * APP_MS_MAX)
    response.end(id)
  }
}
