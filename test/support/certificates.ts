import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** A key and a certificate for it, in PEM. */
export interface Certificate {
  key: string
  cert: string
}

/**
 * Makes a certificate that signs itself, and so is its own authority, with `openssl`.
 * @param names as in subjectAltName: `DNS:localhost`, `IP:127.0.0.1`
 */
export function certificate(...names: string[]): Certificate {
  const folder = mkdtempSync(join(tmpdir(), 'mte-certificates-'))
  try {
    const config = join(folder, 'openssl.cnf')
    writeFileSync(
      config,
      `[req]\ndistinguished_name=dn\nx509_extensions=v3\nprompt=no\n[dn]\nCN=test\n[v3]\nsubjectAltName=${names.join(',')}\n`,
    )
    const key = join(folder, 'key.pem')
    const cert = join(folder, 'cert.pem')
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1']
    execFileSync(
      'openssl',
      ['req', '-x509', '-nodes', '-days', '2', ...curve, '-config', config, '-keyout', key, '-out', cert],
      { stdio: 'pipe' },
    )
    return { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') }
  } finally {
    rmSync(folder, { recursive: true })
  }
}
