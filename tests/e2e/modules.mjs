// Lets tests import the npm packages that `run` installed outside of the source tree.
import { registerHooks } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const here = new URL('.', import.meta.url).href;
const installed = pathToFileURL(join(process.env.E2E_MODULES, 'package.json')).href;

registerHooks({
  resolve(specifier, context, next) {
    const isPackage = !/^(node:|\.|\/|file:|data:)/.test(specifier);
    const isOurs = context.parentURL?.startsWith(here);
    return next(specifier, isPackage && isOurs ? { ...context, parentURL: installed } : context);
  },
});
