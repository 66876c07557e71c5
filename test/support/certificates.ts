import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** A key and a certificate for it, in PEM. */
export interface Certificate {
  key: string
  cert: string
}

/** Somebody who vouches for others. */
export interface Authority {
  /** its own, in PEM */
  cert: string
  /** Makes a certificate for these names, as in `certificate`. */
  issue(...names: string[]): Certificate
}

/**
 * Makes a certificate that signs itself, and so is its own authority, with `openssl`.
 * @param names as in subjectAltName: `DNS:localhost`, `IP:127.0.0.1`
 */
export function certificate(...names: string[]): Certificate {
  return request(`subjectAltName=${names.join(',')}`)
}

/** Makes an authority. */
export function authority(): Authority {
  const own = request('basicConstraints=critical,CA:TRUE')
  return { cert: own.cert, issue: (...names) => request(`subjectAltName=${names.join(',')}`, own) }
}

/** @param issuer signs it; it signs itself where there is none */
function request(extension: string, issuer?: Certificate): Certificate {
  const folder = mkdtempSync(join(tmpdir(), 'mte-certificates-'))
  const file = (name: string) => join(folder, name)
  try {
    writeFileSync(
      file('config'),
      `[req]\ndistinguished_name=dn\nx509_extensions=v3\nprompt=no\n[dn]\nCN=${issuer ? 'issued' : 'test'}\n[v3]\n${extension}\n`,
    )
    if (issuer) {
      writeFileSync(file('issuer.crt'), issuer.cert)
      writeFileSync(file('issuer.key'), issuer.key, { mode: 0o600 })
    }
    const by = issuer ? ['-CA', file('issuer.crt'), '-CAkey', file('issuer.key')] : []
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1']
    const output = ['-keyout', file('key.pem'), '-out', file('cert.pem')]
    execFileSync(
      'openssl',
      ['req', '-x509', '-nodes', '-days', '2', ...curve, '-config', file('config'), ...by, ...output],
      { stdio: 'pipe' },
    )
    return { key: readFileSync(file('key.pem'), 'utf8'), cert: readFileSync(file('cert.pem'), 'utf8') }
  } finally {
    rmSync(folder, { recursive: true })
  }
}
