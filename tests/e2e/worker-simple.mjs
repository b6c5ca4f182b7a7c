// A Worker that runs the call named by a request: ?binding=NAME&call=METHOD and the arguments as a JSON array in the body.
export default {
  async fetch(request, env) {
    const parameters = new URL(request.url).searchParams;
    try {
      const args = await request.json();
      const result = await env[parameters.get('binding')][parameters.get('call')](...args);
      return Response.json({ result: result instanceof Map ? [...result] : result });
    } catch (error) {
      return Response.json({ error: String(error) });
    }
  },
};
