#!/usr/bin/env node
import './node-version.js'
import { existsSync } from 'node:fs'

// A checkout runs as it is; a published package holds what was compiled, as Node strips no types there.
const source = new URL('./main.ts', import.meta.url)
import(existsSync(source) ? source.href : new URL('../dist/sidecar/main.js', import.meta.url).href)
