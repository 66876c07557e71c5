/** The command line. */
import './node-version.js'
import './early-signals.ts'
import { randomBytes } from 'node:crypto'
import { Command, CommanderError, type Help, InvalidArgumentError } from 'commander'
import { ADMIN_DEADLINE_MS, AdminClient, AdminError } from './admin-client.ts'
import { ConfigError, loadAdminAddress, loadConfig } from './config.ts'
import { complain, leave } from './exit.ts'
import { baseUrl, Mistake } from './formats.ts'
import { pairTable } from './pair-table.ts'
import { printable } from './printable.ts'
import { VARIABLES } from './variables.ts'
import { VERSION } from './version.ts'

const SECRET_BYTES = 32
const HELP_WIDTH = 110

const program = new Command('mte-sidecar')
  .description(
    'A proxy beside your application that encrypts its HTTP calls end to end, from sidecar to sidecar. ' +
      'Everything is configured by environment variables: see "mte-sidecar run --help".',
  )
  .version(VERSION)
  .usage('[command]')
  .helpCommand(false)
  .configureHelp({ helpWidth: HELP_WIDTH })
  .showHelpAfterError('(mte-sidecar --help tells all commands)')
  .exitOverride()
  .addHelpText(
    'after',
    `
Without a command it runs the sidecar. To begin:
  mte-sidecar demo                   see what it does, on this machine alone
  mte-sidecar keygen >> .env         make a secret; both sidecars need the same CLIENT_ID_SECRET
  mte-sidecar run --help             all variables

Exit status: 0, 1 for a failure, 64 for a wrong command line, 78 for a wrong configuration.`,
  )

program
  .command('run')
  .description(
    'Runs the sidecar until SIGTERM or SIGINT, then lets open requests finish. A second signal ends it at once.',
  )
  .addHelpText('after', ({ command }) => runHelp(command.createHelp()))
  .action(async () => {
    const loaded = configured()
    if (!loaded) return
    const { run } = await import('./run.ts')
    await run(loaded.config, loaded.warnings)
  })

program
  .command('demo')
  .description(
    'Shows one call between two apps through two sidecars as each side sees it and as the network sees it, times ten thousand more, and leaves. Needs no configuration.',
  )
  .option(
    '--traces',
    'show the call as a trace too: as a tree here, and in a Jaeger that runs until Ctrl-C, where JAEGER_BIN or docker gives one',
  )
  .addHelpText(
    'after',
    `
With --traces, JAEGER_BIN names the program of Jaeger (2, or all-in-one of 1). Without it docker runs one, if docker
is there. With OTEL_EXPORTER_OTLP_ENDPOINT the trace is sent there instead, and nothing is started.
Exit status: 0 if all was as it should be, 1 if not.

Example:
  mte-sidecar demo --traces`,
  )
  .action(async ({ traces = false }: { traces?: boolean }) => {
    const { runDemo } = await import('./demo.ts')
    leave((await runDemo({ traces })) ? 'ok' : 'failure')
  })

program
  .command('keygen')
  .description('Prints a fresh CLIENT_ID_SECRET and OUTBOUND_TOKEN as lines for an environment file.')
  .addHelpText(
    'after',
    `
Give the same CLIENT_ID_SECRET to all sidecars that talk to each other. OUTBOUND_TOKEN is between one app and its
own sidecar; leave it out where every process of the machine may make outbound calls.

Example; the sidecar reads its environment and no file, so the shell reads it:
  mte-sidecar keygen >> .env
  set -a; . ./.env; set +a; mte-sidecar run`,
  )
  .action(keygen)

program
  .command('check')
  .description(
    'Tries what the configuration names: reaches UPSTREAM and Redis, pairs with each peer, looks for what is hardly meant, and says what to do about it.',
  )
  .argument('[URL...]', 'base URLs of more sidecars to pair with')
  .addHelpText(
    'after',
    `
It reads the variables that "mte-sidecar run" reads. Run it as the user and in the container or pod that the
sidecar runs in; it does not disturb one that runs. A line each, with what to do below it:
  ok    works
  warn  works, but is dangerous, or goes wrong one day
  FAIL  does not work
  --    for your information
Exit status: 0 if nothing fails, 1 if something does, 78 if the configuration cannot be used.

Example:
  PEERS=billing=http://10.0.0.7:8080 mte-sidecar check http://10.0.0.8:8080`,
  )
  .action(async (words: string[]) => {
    const urls = words.map((word, i) => toBaseUrl(word, `URL ${i + 1}`))
    const loaded = configured()
    if (!loaded) return
    for (const warning of loaded.warnings) complain(warning)
    const { runCheck } = await import('./check.ts')
    leave((await runCheck(loaded.config, urls)) ? 'ok' : 'failure')
  })

program
  .command('healthcheck')
  .description('Asks the sidecar that runs here whether it is alive, for the health check of a container.')
  .addHelpText(
    'after',
    `
It reads ADMIN_HOST and ADMIN_PORT, and waits ${ADMIN_DEADLINE_MS / 1000} seconds at most.
Exit status: 0 if the sidecar is alive, 1 if not.

Example, in a Dockerfile:
  HEALTHCHECK CMD ["mte-sidecar", "healthcheck"]`,
  )
  .action(() => ask((sidecar) => sidecar.alive()))

program
  .command('drain')
  .description(
    'Has the sidecar that runs here finish: it is not ready any more, and its callers go elsewhere. Returns when they have.',
  )
  .option(
    '--at-least <SECONDS>',
    'wait so long in any case, where it takes a while until callers hear of it',
    toSeconds,
    0,
  )
  .addHelpText(
    'after',
    `
For the preStop hook of a container. From now on /readyz answers 503, so that load balancers send no more calls. Those
that still come are answered, those of the local app go on as before, and it waits until no call is open at the inbound
port and none comes for a second, or until the sidecar's DRAIN_SECONDS are over. It does not stop the sidecar: SIGTERM
does. Nor is there a way back: a sidecar that drains is to be stopped. It reads ADMIN_HOST and ADMIN_PORT.
Exit status: 0, or 1 if nothing answered.

Example, in a container of a pod:
  lifecycle: {preStop: {exec: {command: [mte-sidecar, drain]}}}`,
  )
  .action(drain)

const pairs = program
  .command('pairs')
  .description(
    'Lists the pairs of the sidecar that runs here; "pairs drop PEER" has it forget those with one peer.',
  )
  .option('--json', 'as JSON, with ages in ms')
  .addHelpText(
    'after',
    `
PEER is the base URL of the peer's sidecar where this one made the pair (initiator), and the NAME of the peer's
where that one did (responder). An initiator counts its messages once it has left their block.
TUNNELS are those that this sidecar has open with the peer: calls go in them, and without any each is a message.
It reads ADMIN_HOST and ADMIN_PORT; other machines are told no pairs. Exit status: 0, or 1 if nothing answered.

Example:
  mte-sidecar pairs`,
  )
  .action(showPairs)

pairs
  .command('drop')
  .description('Has the sidecar that runs here forget its pairs with a peer; the next call makes a new one.')
  .argument('<PEER>', 'as mte-sidecar pairs lists it')
  .addHelpText(
    'after',
    `
It reads ADMIN_HOST and ADMIN_PORT. Replicas that share pairs in Redis lose them too, within a minute.
Exit status: 0 if there were pairs, 1 if there were none or nothing answered.

Example:
  mte-sidecar pairs drop http://10.0.0.7:8080`,
  )
  .action(dropPairs)

// A default command of commander's would take a mistyped command for its argument.
const words = process.argv.length > 2 ? process.argv.slice(2) : ['run']
// They are many files, which a sidecar that runs has no need of.
if (words[0] !== 'run') {
  const { addInjectCommand } = await import('./inject/command.ts')
  const { addInjectorCommand } = await import('./injector/command.ts')
  addInjectCommand(program)
  addInjectorCommand(program)
}
try {
  await program.parseAsync(words, { from: 'user' })
} catch (error) {
  if (!(error instanceof CommanderError)) throw error
  leave(error.exitCode === 0 ? 'ok' : 'usage')
}

function keygen(): void {
  const fresh = () => randomBytes(SECRET_BYTES).toString('base64url')
  console.log(`CLIENT_ID_SECRET=${fresh()}\nOUTBOUND_TOKEN=${fresh()}`)
  if (process.stderr.isTTY) {
    console.error(
      '\nAll sidecars that talk to each other need the same CLIENT_ID_SECRET. Keep both to yourself.',
    )
  }
}

/** Asks the sidecar that runs here, and says what comes in the way. */
async function ask(work: (sidecar: AdminClient) => Promise<void>): Promise<void> {
  const address = orComplain(() => loadAdminAddress(process.env))
  if (!address) return
  try {
    await work(new AdminClient(address))
  } catch (error) {
    if (!(error instanceof AdminError)) throw error
    complain(printable(error.message))
    leave('failure')
  }
}

function drain({ atLeast }: { atLeast: number }): Promise<void> {
  return ask(async (sidecar) => {
    const beganMs = performance.now()
    const openCalls = await sidecar.drain(atLeast * 1000)
    const seconds = ((performance.now() - beganMs) / 1000).toFixed(1)
    const calls = openCalls === 1 ? '1 call is' : `${openCalls} calls are`
    const how =
      openCalls === undefined
        ? 'it stopped answering, and so has been stopped'
        : openCalls === 0
          ? 'no call is open at its inbound port'
          : `its DRAIN_SECONDS are over, and ${calls} still open at its inbound port`
    console.log(`The sidecar drains. After ${seconds} s ${how}.`)
  })
}

/** @throws InvalidArgumentError */
function toSeconds(word: string): number {
  if (/^\d{1,4}$/.test(word)) return Number(word)
  throw new InvalidArgumentError('It must be whole seconds, such as 5.')
}

function showPairs({ json = false }: { json?: boolean }): Promise<void> {
  return ask(async (sidecar) => {
    const pairs = await sidecar.pairs()
    if (json) console.log(printable(JSON.stringify(pairs)))
    else if (pairs.length > 0) console.log(pairTable(pairs))
    else console.log('There are no pairs: the first call to or from a peer makes one.')
  })
}

function dropPairs(word: string): Promise<void> {
  const peer = /^https?:/i.test(word) ? toBaseUrl(word, 'PEER') : word
  return ask(async (sidecar) => {
    const dropped = await sidecar.dropPairs(peer)
    if (dropped === 0)
      throw new AdminError(`there was no pair with ${peer}: mte-sidecar pairs lists those that there are`)
    console.log(`Dropped ${dropped} ${dropped === 1 ? 'pair' : 'pairs'} with ${printable(peer)}.`)
  })
}

function configured(): ReturnType<typeof loadConfig> | undefined {
  return orComplain(() => loadConfig(process.env))
}

/** What was read; undefined, with the status set and every mistake told, when that cannot be. */
function orComplain<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    for (const line of [...error.mistakes, ...error.warnings]) complain(line)
    leave('configuration')
    return undefined
  }
}

/** @throws CommanderError, once it has been told; the word is not shown, as it may hold a password */
function toBaseUrl(word: string, what: string): string {
  try {
    return baseUrl(word)
  } catch (error) {
    if (!(error instanceof Mistake)) throw error
    return program.error(`error: ${what} ${error.message}`)
  }
}

function runHelp(help: Help): string {
  help.prepareContext({ helpWidth: HELP_WIDTH })
  const width = Math.max(...Object.keys(VARIABLES).map((name) => name.length))
  const items = Object.entries(VARIABLES).map(([name, { doc, default: value }]) =>
    help.formatItem(name, width, value === null ? doc : `${doc} (default: ${value})`, help),
  )
  return `
Variables; one that is empty is as good as unset:
${items.join('\n')}

Exit status: 0 after a signal, 1 for a failure, 78 if the configuration cannot be used.

Example: the sidecar of an app at port 5000 that calls http://billing, whose sidecar is at 10.0.0.7.
  CLIENT_ID_SECRET_FILE=secret.txt UPSTREAM=http://localhost:5000 PEERS=billing=http://10.0.0.7:8080 mte-sidecar
  curl --proxy http://127.0.0.1:8081 http://billing/v1/charges`
}
