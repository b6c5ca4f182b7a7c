// The Worker of the Workers KV tutorial, unchanged.
export default {
  async fetch(request, env) {
    try {
      await env.SESSIONS.put("user-123", "logged-in", { expirationTtl: 3600 });
      const session = await env.SESSIONS.get("user-123");
      const { keys } = await env.SESSIONS.list({ prefix: "user-" });
      if (session === null) {
        return new Response("Value not found", { status: 404 });
      }
      return Response.json({ session, keys });
    } catch (error) {
      return new Response(error.message, { status: 500 });
    }
  },
};
