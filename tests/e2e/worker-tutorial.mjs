// The Worker of Cloudflare's tutorial.
export default {
  async fetch(request, env) {
    const url = new URL(request.url);
    try {
      if (url.pathname === '/put') {
        await env.SESSIONS.put('user-123', 'logged-in', { expirationTtl: 3600 });
        await env.SESSIONS.put('user-456', JSON.stringify({ name: 'Zoë', visits: 3 }));
        await env.SESSIONS.put('device-1', 'idle');
        return new Response('stored');
      }
      if (url.pathname === '/get') {
        const value = await env.SESSIONS.get('user-123');
        return value === null ? new Response('Value not found', { status: 404 }) : new Response(value);
      }
      if (url.pathname === '/json') return Response.json(await env.SESSIONS.get('user-456', 'json'));
      if (url.pathname === '/list') return Response.json(await env.SESSIONS.list({ prefix: 'user-' }));
      if (url.pathname === '/delete') {
        await env.SESSIONS.delete('user-123');
        return new Response('deleted');
      }
      return new Response('no such path', { status: 400 });
    } catch (error) {
      return new Response(String(error), { status: 500 });
    }
  },
};
