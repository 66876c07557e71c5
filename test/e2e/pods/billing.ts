/** The app that is called, in its pod: prints the id of each call that it executes, and leaves once it has answered. */
import http from 'node:http'
import { countingApp } from '../../chaos/app.ts'
import { BILLING_PORT } from './ports.ts'

// In a row and at once: what has been executed is told even by one that is killed then.
const server = http.createServer(countingApp((id) => console.log(id)))
server.listen(BILLING_PORT, '127.0.0.1', () => console.log('listening'))
process.on('SIGTERM', () => server.close())
