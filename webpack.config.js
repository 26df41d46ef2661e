// Bundles the page. `npm run build --workspace www` writes www/dist; `npm run dev --workspace www` serves it while you
// write, with models from the server at NEARSIDE_SERVER.
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import HtmlWebpackPlugin from "html-webpack-plugin";
import MiniCssExtractPlugin from "mini-css-extract-plugin";

const root = dirname(fileURLToPath(import.meta.url));
const www = join(root, "www");

export default {
  context: www,
  entry: { page: "./src/main.ts" },
  output: {
    path: join(www, "dist"),
    filename: "[name].[contenthash:12].js",
    chunkFilename: "[name].[contenthash:12].js",
    assetModuleFilename: "[name].[contenthash:12][ext]",
    clean: { keep: /^assets\// },
  },
  // No eval: the page's Content-Security-Policy forbids it.
  devtool: "source-map",
  resolve: { extensions: [".ts", ".js"], extensionAlias: { ".js": [".ts", ".js"] } },
  module: {
    rules: [
      { test: /\.ts$/, loader: "esbuild-loader", options: { target: "es2022" } },
      { test: /\.css$/, use: [MiniCssExtractPlugin.loader, "css-loader"] },
    ],
  },
  plugins: [
    new HtmlWebpackPlugin({ template: "./src/index.html", favicon: "./src/icon.svg", scriptLoading: "module" }),
    new MiniCssExtractPlugin({ filename: "[name].[contenthash:12].css" }),
  ],
  // The compiler is larger than what webpack thinks a page should load at once; it is fetched when a model is dropped.
  performance: { hints: false },
  devServer: {
    port: 8081,
    hot: false,
    client: { overlay: false },
    // What a page needs for threads.
    headers: { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" },
    proxy: [
      {
        context: ["/v2", "/targets", "/blobs", "/assets"],
        target: process.env["NEARSIDE_SERVER"] ?? "http://localhost:8080",
      },
    ],
  },
};
