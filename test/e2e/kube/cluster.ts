/** The injector as mesh-examples deploys it, before an API server: what would be its pods are processes here. */
import path from 'node:path'
import { parseAllDocuments } from 'yaml'
import { type Balancer, startBalancer } from '../../support/balancer.ts'
import { type Injector, startInjector } from '../../support/injector.ts'
import type { Kubernetes } from '../../support/kubernetes.ts'

export const EXAMPLES = path.join(import.meta.dirname, '../../../mesh-examples')
/** The address of its Service, at which this machine answers. */
export const SERVICE_ADDRESS = '127.96.0.50'

interface Manifest {
  kind: string
  metadata: { name: string }
  spec?: { clusterIP?: string; ports?: { port: number }[] }
  webhooks?: { clientConfig: { service: { port?: number } } }[]
}

/**
 * Applies the manifests, and starts two replicas with the rights of their service account, behind the Service.
 * @param onClose ends them
 */
export async function deployInjector(
  kubernetes: Kubernetes,
): Promise<{ replicas: Injector[]; service: Balancer; stop(): Promise<void> }> {
  const manifests = await manifestsOf(kubernetes, path.join(EXAMPLES, 'kubernetes/injector/self-signed'))
  const before = manifests.filter(({ kind }) => kind === 'Namespace' || kind === 'ServiceAccount')
  await apply(kubernetes, before)
  const { host, port } = kubernetes.address
  const account = await kubernetes.serviceAccountFolder('mte-sidecar', 'mte-sidecar-injector')
  const env = {
    KUBERNETES_SERVICE_HOST: host,
    KUBERNETES_SERVICE_PORT: String(port),
    SERVICE_ACCOUNT_FOLDER: account,
  }
  const replicas = await Promise.all([startInjector(env), startInjector(env)])
  const service = await startBalancer(
    replicas.map(({ ports }) => ports.webhook),
    SERVICE_ADDRESS,
  )
  for (const { kind, spec, webhooks = [] } of manifests) {
    if (kind === 'Service') Object.assign(spec!, { clusterIP: SERVICE_ADDRESS })
    if (kind === 'Service') spec!.ports![0]!.port = service.port
    for (const { clientConfig } of webhooks) clientConfig.service.port = service.port
  }
  await apply(kubernetes, manifests)
  await Promise.all(replicas.map(({ logged }) => logged(PRESENTED)))
  return {
    replicas,
    service,
    async stop() {
      await service.close()
      await Promise.all(replicas.map((replica) => replica.stop()))
    },
  }
}

/** What an injector logs when it presents another certificate. */
export const PRESENTED = 'the certificate is one of its own making'

/** The manifests of a kustomization. */
export async function manifestsOf({ kubectl }: Kubernetes, folder: string): Promise<Manifest[]> {
  return parseAllDocuments(await kubectl(['kustomize', folder])).map((document) => document.toJS())
}

export async function apply({ kubectl }: Kubernetes, manifests: readonly object[]): Promise<string> {
  const list = { apiVersion: 'v1', kind: 'List', items: manifests }
  return kubectl(['apply', '--filename', '-'], JSON.stringify(list))
}

/** Makes a namespace. @param level of Pod Security */
export async function addNamespace(kubernetes: Kubernetes, name: string, level: string): Promise<void> {
  const labels = { 'pod-security.kubernetes.io/enforce': level }
  await apply(kubernetes, [{ apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } }])
}
