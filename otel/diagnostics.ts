/** What the SDK says of itself, in the sidecar's log. */
import { type DiagLogger, DiagLogLevel, diag } from '@opentelemetry/api'
import { diagLogLevelFromString } from '@opentelemetry/core'
import type { Logger } from '../sidecar/log.ts'

/** A collector that is away for a night fails thousands of exports. */
const WARNING_MS = 60_000
const TEXT_CHARACTERS_MAX = 300

/** Warns once a minute at most, whatever there is to warn of: all of it has one cause as a rule. */
export class Warnings {
  readonly #log: Logger
  #lastMs = Number.NEGATIVE_INFINITY
  #left = 0

  constructor(log: Logger) {
    this.#log = log
  }

  warn(text: string): void {
    const nowMs = performance.now()
    if (nowMs - this.#lastMs < WARNING_MS) {
      this.#left++
      return
    }
    this.#lastMs = nowMs
    this.#log.warn(this.#left === 0 ? {} : { leftOut: this.#left }, text)
    this.#left = 0
  }
}

/**
 * Sends the SDK's own messages to the log.
 * @param level of the least that is sent, as OTEL_LOG_LEVEL has it; unset: warnings
 */
export function logDiagnostics(log: Logger, warnings: Warnings, level: string | undefined): void {
  const warn = (...parts: unknown[]) => warnings.warn(`OpenTelemetry: ${textOf(parts)}`)
  const debug = (...parts: unknown[]) => log.debug(`OpenTelemetry: ${textOf(parts)}`)
  const logger: DiagLogger = {
    error: warn,
    warn,
    info: (...parts: unknown[]) => log.info(`OpenTelemetry: ${textOf(parts)}`),
    debug,
    verbose: debug,
  }
  const logLevel = diagLogLevelFromString(level) ?? DiagLogLevel.WARN
  diag.setLogger(logger, { logLevel })
}

/** The texts alone: other parts may be whole spans, or errors with what the collector answered. */
function textOf(parts: readonly unknown[]): string {
  const texts = parts.filter((part) => typeof part === 'string')
  return texts.map(messageOf).join(' ').slice(0, TEXT_CHARACTERS_MAX)
}

/** The message of an error that the SDK has written out as JSON, with its stack and all else that it has. */
function messageOf(text: string): string {
  if (!text.startsWith('{')) return text
  try {
    return String((JSON.parse(text) as { message?: unknown }).message)
  } catch {
    return text
  }
}
