/** For those of its own pod. */
export const BILLING_H2C_PORT = 8081
