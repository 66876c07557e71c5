# docker build -t mte-sidecar:0.1.0 .
#
# Other bases can be given with --build-arg: BUILD_IMAGE has a shell, Node and npm; RUNTIME_IMAGE has Node at
# /nodejs/bin/node, and nothing else is asked of it.
ARG BUILD_IMAGE=node:26-trixie-slim
ARG RUNTIME_IMAGE=gcr.io/distroless/nodejs26-debian13:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /build
COPY package.json package-lock.json ./
# No package's script has to run, and none does: that of the development dependency `node` would fetch another Node.
RUN npm ci --ignore-scripts
COPY . .
# What stays is the compiled program and the packages it runs with, without types and source maps: half of their bytes.
# Its first line names Node, as nothing is there that would look for it. Sidecars are many: memory of Node's that makes
# them hardly faster is better left to apps; that is what the flag and MALLOC_ARENA_MAX are for.
RUN npm run build \
  && npm prune --omit=dev --ignore-scripts \
  && find node_modules -type f \( -name '*.map' -o -name '*.ts' -o -name '*.mts' -o -name '*.cts' \) -delete \
  && sed -i '1i #!/nodejs/bin/node --max-semi-space-size=4' dist/sidecar/main.js \
  && chmod 755 dist/sidecar/main.js \
  && mkdir -p /image/app /image/usr/local/bin \
  && mv LICENSE package.json node_modules dist /image/app \
  && ln -s /app/dist/sidecar/main.js /image/usr/local/bin/mte-sidecar

FROM ${RUNTIME_IMAGE}
LABEL org.opencontainers.image.title="mte-sidecar" \
  org.opencontainers.image.description="A proxy beside your application that encrypts its HTTP calls end to end, from sidecar to sidecar, through every load balancer, gateway and mesh between" \
  org.opencontainers.image.version="0.1.0" \
  org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image /
ENV MALLOC_ARENA_MAX=2
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["mte-sidecar", "healthcheck"]
ENTRYPOINT ["mte-sidecar"]
