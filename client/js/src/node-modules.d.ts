// The few names of Node that are used here: its types come from a registry that a build need not reach.
declare module "node:http" {
  export function request(url: string | URL, options: object): any;
}
declare module "node:https" {
  export function request(url: string | URL, options: object): any;
}
declare module "node:crypto" {
  export function createHash(name: string): { update(data: string): { digest(encoding: string): string } };
  export function randomBytes(size: number): any;
}
declare const Buffer: any;
