// What webpack makes of files that are no code.
declare module "*.css";
