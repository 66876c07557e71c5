// Imported before everything else, and in words that every Node with modules understands: an old one stops at the
// first type, or at the first call of what it lacks, with a riddle.
const [major, minor] = process.versions.node.split('.').map(Number)
if (major < 24 || (major === 24 && minor < 11)) {
  process.stderr.write(
    `mte-sidecar needs Node 24.11 or newer, and this is Node ${process.versions.node} (${process.execPath}). ` +
      'In a checkout, "npm ci" brings the right one, and "npm start" or "npx mte-sidecar" runs it; ' +
      'elsewhere, get it from https://nodejs.org.\n',
  )
  process.exit(1)
}
