/** What the pods of the two apps have in common. */
export const SIDECAR_PORTS = { inbound: 7781, outbound: 7780, admin: 7782 }
export const BILLING_PORT = 8080
/** Of each app that calls. */
export const CALLS_PER_SECOND = 100
