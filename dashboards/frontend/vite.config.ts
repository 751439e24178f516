import { defineConfig } from "vite";

// One script and one style sheet under fixed names: the same sources give the same files, so that the bundle in the
// repository can be compared with a fresh build.
export default defineConfig({
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
