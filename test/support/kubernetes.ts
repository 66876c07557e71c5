/** A real API server of Kubernetes, with etcd and the controllers that make pods of Deployments; no node, and so no container runs. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import https from 'node:https'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { certificate } from './certificates.ts'
import { type GoProgram, goProgram } from './go-program.ts'
import { listen } from './sidecars.ts'

export interface Kubernetes {
  /** host and port of the API server */
  address: { host: string; port: number }
  /**
   * Runs `kubectl` as one who may do everything.
   * @param input for its standard input
   * @returns what it printed
   * @throws KubectlError
   */
  kubectl(args: readonly string[], input?: string): Promise<string>
  /** Makes a folder as pods have it in /var/run/secrets, with a token of a service account: what that may do, no more. */
  serviceAccountFolder(namespace: string, name: string): Promise<string>
  /** Ends it, and forgets all that was in it. */
  stop(): Promise<void>
}

/** A `kubectl` that failed. */
export class KubectlError extends Error {
  /** what it printed on standard error */
  readonly complaint: string

  constructor(complaint: string) {
    super(complaint)
    this.complaint = complaint
  }
}

const VERSION = '1.36.3'
/** Addresses of Services: on this machine, so that what listens there is reached. */
const SERVICE_ADDRESSES = '127.96.0.0/24'
const API_SERVICE_ADDRESS = '127.96.0.1'
const START_DEADLINE_MS = 90_000
const STOP_DEADLINE_MS = 10_000
const POLL_MS = 100
const LOG_LINES = 20
const OUTPUT_BYTES_MAX = 64 * 1024 * 1024
/** Modules that are in the repository of Kubernetes, and of the same version. */
const STAGING = [
  ...['api', 'apiextensions-apiserver', 'apimachinery', 'apiserver', 'cli-runtime', 'client-go'],
  ...['cloud-provider', 'cluster-bootstrap', 'code-generator', 'component-base', 'component-helpers'],
  ...['controller-manager', 'cri-api', 'cri-client', 'cri-streaming', 'csi-translation-lib'],
  ...['dynamic-resource-allocation', 'endpointslice', 'externaljwt', 'kms', 'kube-aggregator'],
  ...['kube-controller-manager', 'kube-proxy', 'kube-scheduler', 'kubectl', 'kubelet', 'metrics'],
  ...['mount-utils', 'pod-security-admission', 'sample-apiserver', 'sample-cli-plugin'],
  ...['sample-controller', 'streaming'],
]
const CONTROLLERS = [
  'serviceaccount-controller',
  'root-ca-certificate-publisher-controller',
  'namespace-controller',
  'deployment-controller',
  'replicaset-controller',
  'garbage-collector-controller',
]

const ETCD: GoProgram = {
  name: 'etcd',
  version: '3.6.8',
  variable: 'ETCD_BIN',
  origin: 'https://github.com/etcd-io/etcd/releases',
  requires: ['go.etcd.io/etcd/server/v3@v3.6.8'],
  main: {
    source: `package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
`,
  },
}
const API_SERVER = ofKubernetes('kube-apiserver', 'KUBE_APISERVER_BIN')
const CONTROLLER_MANAGER = ofKubernetes('kube-controller-manager', 'KUBE_CONTROLLER_MANAGER_BIN')
const KUBECTL = ofKubernetes('kubectl', 'KUBECTL_BIN')

/** Builds what is not there yet, in minutes; where that cannot be done it says so, and leaves it to tests to fail. */
export async function buildKubernetes(say: (line: string) => void): Promise<void> {
  try {
    // One after the other: they have most of what they are made of in common.
    for (const program of [ETCD, API_SERVER, CONTROLLER_MANAGER, KUBECTL]) await goProgram(program, say)
  } catch (error) {
    say(`What needs Kubernetes will fail: ${(error as Error).message}`)
  }
}

/** Starts an API server of its own, on free ports. @throws Error with the end of the log of what does not start */
export async function startKubernetes(): Promise<Kubernetes> {
  const programs = [ETCD, API_SERVER, CONTROLLER_MANAGER, KUBECTL].map((one) => goProgram(one, console.error))
  const [etcd, apiServer, controllerManager, kubectlProgram] = await Promise.all(programs)
  const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-kubernetes-'))
  const file = (name: string) => path.join(folder, name)
  const [etcdPort, peerPort, port] = (await Promise.all([freePort(), freePort(), freePort()])) as number[]
  const { key, cert } = certificate('IP:127.0.0.1', `IP:${API_SERVICE_ADDRESS}`)
  const serviceAccounts = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const token = randomBytes(16).toString('hex')
  for (const [name, content] of Object.entries({
    'server.key': key,
    'server.crt': cert,
    'accounts.key': serviceAccounts.privateKey.export({ type: 'pkcs8', format: 'pem' }),
    'accounts.pub': serviceAccounts.publicKey.export({ type: 'spki', format: 'pem' }),
    'tokens.csv': `${token},admin,admin,"system:masters"\n`,
    kubeconfig: kubeconfig(port!, cert, token),
  }))
    writeFileSync(file(name), content, { mode: 0o600 })

  const running: ChildProcess[] = []
  const start = (binary: string, flags: Record<string, string | number | boolean>) => {
    const name = path.basename(binary)
    const log = openSync(file(`${name}.log`), 'w')
    const args = Object.entries(flags).map(([flag, value]) => `--${flag}=${value}`)
    const child = spawn(binary, args, { cwd: folder, stdio: ['ignore', log, log] })
    closeSync(log)
    running.push(child)
    return async (isReady: () => Promise<boolean>) => {
      const endMs = performance.now() + START_DEADLINE_MS
      await until(async () => {
        if (child.exitCode !== null || performance.now() > endMs)
          throw new Error(`${name} does not start:\n${lastLines(file(`${name}.log`))}`)
        return isReady().catch(() => false)
      })
    }
  }
  const stop = async () => {
    // The last first: none of them misses another.
    for (const child of running.toReversed()) await end(child)
    rmSync(folder, { recursive: true })
  }
  const kubectl = (args: readonly string[], input?: string) =>
    run(kubectlProgram!, ['--kubeconfig', file('kubeconfig'), ...args], input)

  try {
    const peer = `http://127.0.0.1:${peerPort}`
    const client = `http://127.0.0.1:${etcdPort}`
    await start(etcd!, {
      name: 'test',
      'data-dir': file('etcd'),
      'unsafe-no-fsync': true,
      'log-level': 'warn',
      'listen-client-urls': client,
      'advertise-client-urls': client,
      'listen-peer-urls': peer,
      'initial-advertise-peer-urls': peer,
      'initial-cluster': `test=${peer}`,
    })(async () => (await fetch(`${client}/health`)).ok)
    await start(apiServer!, {
      'etcd-servers': client,
      'bind-address': '127.0.0.1',
      'advertise-address': '127.0.0.1',
      'secure-port': port!,
      'endpoint-reconciler-type': 'none',
      'tls-cert-file': file('server.crt'),
      'tls-private-key-file': file('server.key'),
      'service-account-issuer': 'https://kubernetes.default.svc',
      'service-account-key-file': file('accounts.pub'),
      'service-account-signing-key-file': file('accounts.key'),
      'service-cluster-ip-range': SERVICE_ADDRESSES,
      'token-auth-file': file('tokens.csv'),
      'authorization-mode': 'RBAC',
      'allow-privileged': true,
    })(() => isReady(port!, cert, token))
    await start(controllerManager!, {
      kubeconfig: file('kubeconfig'),
      'bind-address': '127.0.0.1',
      'secure-port': 0,
      'leader-elect': false,
      'root-ca-file': file('server.crt'),
      'service-account-private-key-file': file('accounts.key'),
      controllers: CONTROLLERS.join(','),
    })(async () => (await kubectl(['get', 'serviceaccount', 'default'])) !== '')
  } catch (error) {
    await stop()
    throw error
  }
  return {
    address: { host: '127.0.0.1', port: port! },
    kubectl,
    async serviceAccountFolder(namespace, name) {
      const account = file(`account-${namespace}-${name}`)
      mkdirSync(account, { recursive: true })
      const own = await kubectl(['create', 'token', name, '--namespace', namespace])
      for (const [name, content] of Object.entries({ token: own, 'ca.crt': cert, namespace }))
        writeFileSync(path.join(account, name), content)
      return account
    },
    stop,
  }
}

/** Resolves when this holds; it is asked again and again. */
export async function until(holds: () => Promise<boolean>): Promise<void> {
  while (!(await holds())) await delay(POLL_MS)
}

function ofKubernetes(name: string, variable: string): GoProgram {
  const version = `v0.${VERSION.slice(2)}`
  return {
    name,
    version: VERSION,
    variable,
    origin: 'https://kubernetes.io/releases/download',
    requires: [`k8s.io/kubernetes/cmd/${name}@v${VERSION}`],
    replaces: STAGING.map((module) => `k8s.io/${module}=k8s.io/${module}@${version}`),
    linked: ['k8s.io/component-base', 'k8s.io/client-go/pkg'].map(
      (module) => `${module}/version.gitVersion=v${VERSION}`,
    ),
    main: `k8s.io/kubernetes/cmd/${name}`,
    exact: true,
  }
}

function kubeconfig(port: number, ca: string, token: string): string {
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [
      {
        name: 'test',
        cluster: {
          server: `https://127.0.0.1:${port}`,
          'certificate-authority-data': Buffer.from(ca).toString('base64'),
        },
      },
    ],
    users: [{ name: 'admin', user: { token } }],
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'admin' } }],
    'current-context': 'test',
  })
}

async function isReady(port: number, ca: string, token: string): Promise<boolean> {
  const headers = { authorization: `Bearer ${token}` }
  const request = https.get({ host: '127.0.0.1', port, path: '/readyz', ca, headers, agent: false })
  const [response] = await once(request, 'response')
  response.resume()
  return response.statusCode === 200
}

function run(program: string, args: readonly string[], input?: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  const child = execFile(program, args, { maxBuffer: OUTPUT_BYTES_MAX }, (error, stdout, stderr) => {
    if (error) reject(new KubectlError(stderr || error.message))
    else resolve(stdout)
  })
  child.stdin!.end(input)
  return promise
}

async function freePort(): Promise<number> {
  const server = net.createServer()
  const port = await listen(server)
  server.close()
  return port
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_DEADLINE_MS)
  await ended
  clearTimeout(timer)
}

function lastLines(file: string): string {
  return readFileSync(file, 'utf8').trimEnd().split('\n').slice(-LOG_LINES).join('\n')
}
