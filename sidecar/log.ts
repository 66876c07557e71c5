import { type LevelWithSilent, pino, stdTimeFunctions } from 'pino'

export const LOG_LEVELS = [
  'fatal',
  'error',
  'warn',
  'info',
  'debug',
  'trace',
  'silent',
] as const satisfies LevelWithSilent[]
export type LogLevel = (typeof LOG_LEVELS)[number]

/** Only a terminal is worth what it takes to load. */
const pretty = process.stderr.isTTY ? (await import('pino-pretty')).default : undefined

type Write = {
  (fields: object, message: string): void
  (message: string): void
}

/** What the rest of the sidecar needs of a logger. Fields never hold anything secret, nor anything of a call; errors go into `err`. */
export interface Logger {
  error: Write
  warn: Write
  info: Write
  debug: Write
}

/**
 * Logs on standard error: one JSON object a line (`time`, `level`, `msg`, fields), readable lines at a terminal.
 *
 * Lines are written at once, so that none is lost when the process ends.
 * @param base what every line has
 */
export function createLogger(level: LogLevel, base: object | null = null): Logger {
  const options = {
    level,
    base,
    timestamp: stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    serializers: { err: describeError },
  }
  if (pretty) return pino(options, pretty({ destination: 2, sync: true, singleLine: true }))
  return pino(options, pino.destination({ dest: 2, sync: true }))
}

/** Without the properties of the error, which pino would show: some of Node's hold the bytes that could not be read. */
function describeError(error: unknown): object {
  if (!(error instanceof Error)) return { message: `a thrown ${typeof error}` }
  const { name, message, stack, cause } = error
  return { type: name, message, stack, ...(cause === undefined ? {} : { cause: describeError(cause) }) }
}
