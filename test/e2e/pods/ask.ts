/**
 * In a pod: asks for each `METHOD URL` or `METHOD URL HOST` of its arguments, and prints a line for each: the status, or
 * why there is none.
 */
import { once } from 'node:events'
import http from 'node:http'

for (const word of process.argv.slice(2)) {
  // As somebody who would like to be taken for this machine.
  const [method, url, host = 'localhost'] = word.split(' ') as [string, string, string?]
  const request = http.request(url, { method, headers: { host }, agent: false }).end()
  try {
    const [response] = (await once(request, 'response')) as [http.IncomingMessage]
    response.resume()
    console.log(response.statusCode)
  } catch (error) {
    console.log((error as NodeJS.ErrnoException).code)
  }
}
