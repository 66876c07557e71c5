/** Real OpenTelemetry collectors for tests. None of them outlives its test. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { type GoProgram, goProgram } from './go-program.ts'
import { unusedPort } from './sidecars.ts'

const run = promisify(execFile)
const START_DEADLINE_MS = 20_000
const POLL_MS = 20
const CONFIG = path.join(import.meta.dirname, '../../otel/collector.yaml')
const CORE = 'go.opentelemetry.io/collector'
const CONTRIB = 'github.com/open-telemetry/opentelemetry-collector-contrib'
/** of the collector and its parts, and of those parts of it whose interface is settled */
const VERSION = '0.155.0'
const STABLE_VERSION = '1.61.0'

/** With the parts that otel/collector.yaml names, which those that can be had ready-made have among many. */
const OTELCOL: GoProgram = {
  name: 'otelcol-mte',
  version: VERSION,
  variable: 'OTELCOL_BIN',
  origin: 'otelcol-contrib of https://github.com/open-telemetry/opentelemetry-collector-releases/releases',
  requires: [
    `${CORE}/otelcol@v${VERSION}`,
    `${CORE}/receiver/otlpreceiver@v${VERSION}`,
    `${CORE}/processor/memorylimiterprocessor@v${VERSION}`,
    `${CORE}/processor/batchprocessor@v${VERSION}`,
    `${CORE}/exporter/otlpexporter@v${VERSION}`,
    `${CONTRIB}/exporter/prometheusexporter@v${VERSION}`,
    `${CONTRIB}/extension/healthcheckextension@v${VERSION}`,
    `${CORE}/confmap/provider/envprovider@v${STABLE_VERSION}`,
    `${CORE}/confmap/provider/fileprovider@v${STABLE_VERSION}`,
    `${CORE}/confmap/provider/yamlprovider@v${STABLE_VERSION}`,
  ],
  main: {
    source: `package main

import (
	"log"

	"${CONTRIB}/exporter/prometheusexporter"
	"${CONTRIB}/extension/healthcheckextension"
	"${CORE}/component"
	"${CORE}/confmap"
	"${CORE}/confmap/provider/envprovider"
	"${CORE}/confmap/provider/fileprovider"
	"${CORE}/confmap/provider/yamlprovider"
	"${CORE}/exporter"
	"${CORE}/exporter/otlpexporter"
	"${CORE}/extension"
	"${CORE}/otelcol"
	"${CORE}/processor"
	"${CORE}/processor/batchprocessor"
	"${CORE}/processor/memorylimiterprocessor"
	"${CORE}/receiver"
	"${CORE}/receiver/otlpreceiver"
	"${CORE}/service/telemetry/otelconftelemetry"
)

func must[T any](made T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return made
}

func factories() (otelcol.Factories, error) {
	return otelcol.Factories{
		Telemetry:  otelconftelemetry.NewFactory(),
		Extensions: must(otelcol.MakeFactoryMap[extension.Factory](healthcheckextension.NewFactory())),
		Receivers:  must(otelcol.MakeFactoryMap[receiver.Factory](otlpreceiver.NewFactory())),
		Processors: must(otelcol.MakeFactoryMap[processor.Factory](
			memorylimiterprocessor.NewFactory(), batchprocessor.NewFactory())),
		Exporters: must(otelcol.MakeFactoryMap[exporter.Factory](
			otlpexporter.NewFactory(), prometheusexporter.NewFactory())),
	}, nil
}

func main() {
	settings := otelcol.CollectorSettings{
		BuildInfo: component.BuildInfo{Command: "otelcol", Version: "${VERSION}"},
		Factories: factories,
	}
	settings.ConfigProviderSettings.ResolverSettings.ProviderFactories = []confmap.ProviderFactory{
		envprovider.NewFactory(), fileprovider.NewFactory(), yamlprovider.NewFactory()}
	if err := otelcol.NewCommand(settings).Execute(); err != nil {
		log.Fatal(err)
	}
}
`,
  },
}

export interface Collector {
  /** base URL of OTLP over HTTP */
  otlpUrl: string
  /** what it tells Prometheus */
  metrics(): Promise<string>
  stop(): Promise<void>
}

/** @returns the path of a collector's binary. @throws Error that says how to get one */
export function collectorBinary(say: (line: string) => void = console.error): Promise<string> {
  return goProgram(OTELCOL, say)
}

/**
 * Starts a collector with otel/collector.yaml, on free ports.
 * @param jaegerEndpoint host:port of Jaeger's OTLP over gRPC
 */
export async function startCollector(jaegerEndpoint: string): Promise<Collector> {
  const [grpc, http, prometheus, health] = await unusedEndpoints(4)
  const program = await startProgram(await collectorBinary(), {
    config: CONFIG,
    settings: {
      'receivers.otlp.protocols.grpc.endpoint': grpc!,
      'receivers.otlp.protocols.http.endpoint': http!,
      'exporters.prometheus.endpoint': prometheus!,
      'extensions.health_check.endpoint': health!,
    },
    env: { JAEGER_OTLP_ENDPOINT: jaegerEndpoint },
    readyUrl: `http://${health}/`,
  })
  return {
    otlpUrl: `http://${http}`,
    metrics: async () => (await fetch(`http://${prometheus}/metrics`)).text(),
    stop: program.stop,
  }
}

/** @throws Error that says what is wrong with a configuration of the collector */
export async function validateConfig(config = CONFIG): Promise<void> {
  await run(await collectorBinary(), ['validate', '--config', config])
}

export interface Program {
  stop(): Promise<void>
}

export interface ProgramOptions {
  config: string
  /** what is to be other than in the configuration, by its path there */
  settings: Record<string, string>
  env?: Record<string, string>
  /** answers 200 once the program is ready */
  readyUrl: string
}

const running = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})

/**
 * Starts a collector, or a program that is made of one, and resolves when it is ready.
 * @throws Error with what it printed, when it ends or is not ready in time
 */
export async function startProgram(
  binary: string,
  { config, settings, env, readyUrl }: ProgramOptions,
): Promise<Program> {
  const changes = Object.entries(settings).map(([name, value]) => `--set=${name}=${value}`)
  const child = spawn(binary, ['--config', config, ...changes], {
    env: { PATH: process.env.PATH, ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  running.add(child)
  const gone = once(child, 'exit').finally(() => running.delete(child))
  let printed = ''
  child.stderr.setEncoding('utf8').on('data', (text) => {
    printed += text
  })
  const stop = async () => {
    child.kill('SIGKILL')
    await gone
  }
  const deadlineMs = performance.now() + START_DEADLINE_MS
  while (!(await answers(readyUrl))) {
    if (child.exitCode === null && performance.now() < deadlineMs) await sleep(POLL_MS)
    else {
      await stop()
      throw new Error(`${path.basename(binary)} did not start:\n${printed}`)
    }
  }
  return { stop }
}

/** host:port each, on which nothing listens */
export async function unusedEndpoints(count: number): Promise<string[]> {
  const ports = await Promise.all(Array.from({ length: count }, unusedPort))
  return ports.map((port) => `127.0.0.1:${port}`)
}

async function answers(url: string): Promise<boolean> {
  try {
    const answer = await fetch(url)
    await answer.arrayBuffer()
    return answer.ok
  } catch {
    return false
  }
}
