/** `mte-sidecar injector`, on the command line. */
import type { Command } from 'commander'
import { ConfigError } from '../config.ts'
import { complain, leave } from '../exit.ts'
import { addDefaults, givenDefaults } from '../inject/command.ts'
import { INJECTOR_VARIABLES, optionVariable, readSettings, readSidecarOptions } from './settings.ts'

/** Adds the command to a program. */
export function addInjectorCommand(program: Command): void {
  const command = program
    .command('injector')
    .description(
      'Puts the sidecar into new pods of a Kubernetes cluster that are labelled mte.sidecar/inject: "true": a mutating webhook, which runs until SIGTERM.',
    )
    .option(
      '--policy',
      'print admission policies that do the same without a server; Kubernetes 1.36 or newer',
    )
  addDefaults(command)
  command
    .addHelpText('after', () => help(command))
    .action(({ policy = false }: { policy?: boolean }) => injector(command, policy))
}

/** The policies go to standard output; every mistake is told, to standard error. */
async function injector(command: Command, policy: boolean): Promise<void> {
  const given = givenDefaults(command)
  try {
    if (policy) {
      const { policyManifest } = await import('./policy.ts')
      process.stdout.write(policyManifest(readSidecarOptions(given, process.env)))
    } else {
      const { runInjector } = await import('./injector.ts')
      await runInjector(readSettings(given, process.env))
    }
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    for (const mistake of error.mistakes) complain(mistake)
    leave('configuration')
  }
}

function help(command: Command): string {
  const help = command.createHelp()
  help.prepareContext(command.configureHelp())
  const width = Math.max(...Object.keys(INJECTOR_VARIABLES).map((name) => name.length))
  const items = Object.entries(INJECTOR_VARIABLES).map(([name, { doc, default: value }]) =>
    help.formatItem(name, width, value === null ? doc : `${doc} (default: ${value})`, help),
  )
  return `
Each of these options is a variable too, ${optionVariable('image')} or ${optionVariable('log-level')}, over which the option
wins; and over both the annotations of a pod: mte.sidecar/upstream-port: "3000" and so on. A pod whose annotation
mte.sidecar/inject is "false" is left as it is.

Variables of its own:
${items.join('\n')}

Exit status: 0 after a signal, 1 for a failure, 78 if the configuration cannot be used.

Example: policies by which every sidecar takes its secret from the Secret shared.
  mte-sidecar injector --policy --secret shared | kubectl apply -f -`
}
