// Loaded before everything else, and plain JavaScript, because an old Node stops at the first type with a riddle.
const [major, minor] = process.versions.node.split('.').map(Number)
if (major < 24 || (major === 24 && minor < 11)) {
  console.error(
    `Node 24.11 or newer is needed, and this is Node ${process.versions.node} (${process.execPath}).\n` +
      'npm scripts use the Node 26 that `npm ci` puts into node_modules/.bin, and it is not there:\n' +
      'run `npm ci --ignore-scripts=false` (its install script fetches it), or put a newer Node on your PATH.\n',
  )
  process.exit(1)
}
