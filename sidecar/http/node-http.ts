/**
 * node:http, without what an import of it brings along: that would read its WebSocket too, and so load a second HTTP
 * client of Node's, at 3 MB and 20 ms of each start.
 */
export const nodeHttp = process.getBuiltinModule('node:http')
