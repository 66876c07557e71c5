/** Imported before a program, it says on standard error which packages that has loaded: a JSON line as it ends. */
import { registerHooks } from 'node:module'

const packages = new Set<string>()
registerHooks({
  load(url, context, next) {
    const [, name] = /\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(url) ?? []
    if (name !== undefined) packages.add(name)
    return next(url, context)
  },
})
process.on('exit', () =>
  process.stderr.write(`${JSON.stringify({ msg: 'loaded', packages: [...packages] })}\n`),
)
