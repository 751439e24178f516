import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { defineConfig, type Plugin } from "vite";

/** The digest of all that the bundle is made from, put beside it: a test sees without npm that it is up to date. */
function sources(): Plugin {
  const files = ["index.html", "package-lock.json", "tsconfig.json", "vite.config.ts"];
  for (const folder of ["public", "src"])
    for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true }))
      if (entry.isFile()) files.push(join(entry.parentPath, entry.name));
  const hash = createHash("sha256");
  for (const file of files.sort()) hash.update(`${file}\0`).update(readFileSync(file)).update("\0");
  const source = `${hash.digest("hex")}\n`;
  return {
    name: "sources",
    generateBundle() {
      this.emitFile({ type: "asset", fileName: "sources.sha256", source });
    },
  };
}

// One script and one style sheet under fixed names: the same sources give the same files, so that the bundle in the
// repository can be compared with a fresh build.
export default defineConfig({
  plugins: [sources()],
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: "../static",
    emptyOutDir: true,
    modulePreload: false,
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    target: "es2022",
    rollupOptions: {
      output: { entryFileNames: "app.js", assetFileNames: "[name][extname]", codeSplitting: false },
    },
  },
  server: { proxy: { "/api": "http://127.0.0.1:8080" } },
});
