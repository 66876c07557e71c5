/** `mte-sidecar inject`, on the command line. */
import type { Command } from 'commander'
import { complain, leave } from '../exit.ts'
import { printable } from '../printable.ts'
import { injectFile, UnreadableError } from './inject.ts'
import { DEFAULT_NAMES, OPTIONS, type OptionName, type Options, readOptions } from './options.ts'

/** Adds the command to a program. */
export function addInjectCommand(program: Command): void {
  const command = program
    .command('inject')
    .description(
      'Prints a Kubernetes manifest with the sidecar in each of its pods and workloads. All else of it stays as it is, byte for byte.',
    )
    .argument('<FILE>', 'YAML or JSON; - is standard input')
    .option('--diff', 'print what differs instead, as a unified diff')
    .option('--services', 'have Services that lead to the apps lead to their sidecars')
  addDefaults(command)
  command
    .addHelpText(
      'after',
      `
The annotations of a pod, or of a workload's pod template, win: mte.sidecar/upstream-port: "3000" and so on, with two
that are of one pod alone:
  mte.sidecar/inject  ${help('inject')}
  mte.sidecar/name    ${help('name')}
Where something is refused nothing is printed but why. Exit status: 0, or 1 if something is refused.

Example:
  mte-sidecar inject --peers billing=http://billing orders.yaml | kubectl apply -f -`,
    )
    .action((file: string, { diff = false, services = false }: { diff?: boolean; services?: boolean }) =>
      inject(file, { defaults: readDefaults(command), diff, services }),
    )
}

/** Adds an option for each of those that a pod's annotations may leave open. */
export function addDefaults(command: Command): void {
  for (const name of DEFAULT_NAMES) command.option(`--${name} <VALUE>`, help(name))
}

/**
 * What those options say.
 * @throws CommanderError, once all that is wrong with them has been told
 */
export function readDefaults(command: Command): Partial<Options> {
  const { options, told } = readOptions(givenDefaults(command))
  if (told.length > 0) command.error(told.map(({ name, what }) => `error: --${name} ${what}`).join('\n'))
  return options
}

/** Those options as they are written, '' where one is not given. */
export function givenDefaults(command: Command): Partial<Record<OptionName, string>> {
  const given = DEFAULT_NAMES.map((name) => {
    const option = command.options.find(({ long }) => long === `--${name}`)!
    return [name, command.getOptionValue(option.attributeName()) ?? '']
  })
  return Object.fromEntries(given)
}

/** The manifest goes to standard output, all else to standard error. */
async function inject(file: string, how: Parameters<typeof injectFile>[1]): Promise<void> {
  try {
    const { output, messages } = await injectFile(file, how)
    for (const message of messages) complain(printable(message))
    if (output === undefined) leave('failure')
    else process.stdout.write(output)
  } catch (error) {
    if (!(error instanceof UnreadableError)) throw error
    complain(printable(error.message))
    leave('failure')
  }
}

function help(name: OptionName): string {
  const { doc, default: value } = OPTIONS[name]
  return value === null ? doc : `${doc} (default: ${value})`
}
