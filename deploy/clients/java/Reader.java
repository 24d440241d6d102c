// Reads tracks and users with Jedis: java -cp 'jars/*' Reader.java localhost:6379 track:t1 user:ana
import com.google.gson.GsonBuilder;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import redis.clients.jedis.HostAndPort;
import redis.clients.jedis.JedisPooled;
import redis.clients.jedis.Response;

public class Reader {
    static float[] vector(byte[] value) {
        var floats = new float[value.length / 4];
        ByteBuffer.wrap(value).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(floats);
        return floats;
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    public static void main(String[] args) {
        var json = new GsonBuilder().serializeNulls().create();
        try (var client = new JedisPooled(HostAndPort.from(args[0])); var pipeline = client.pipelined()) {
            var release = client.hget("tw:live", "release"); // keep it for a second at most
            var replies = new LinkedHashMap<String, Response<Map<byte[], byte[]>>>();
            for (int i = 1; i < args.length; i++) {
                var asked = args[i].split(":", 2);
                replies.put(args[i], pipeline.hgetAll(bytes("tw:" + release + ":" + asked[0] + ":{" + asked[1] + "}")));
            }
            pipeline.sync();
            replies.forEach((asked, reply) -> {
                var fields = new HashMap<String, byte[]>();
                reply.get().forEach((name, value) -> fields.put(new String(name, StandardCharsets.UTF_8), value));
                var answer = new LinkedHashMap<String, Object>(Map.of("asked", asked, "known", !fields.isEmpty()));
                for (var name : new String[] {"status", "genre", "source", "confidence"})
                    if (fields.containsKey(name)) answer.put(name, new String(fields.get(name), StandardCharsets.UTF_8));
                answer.computeIfPresent("confidence", (name, value) -> Double.parseDouble((String) value));
                if (fields.containsKey("embedding")) answer.put("embedding", vector(fields.get("embedding")));
                System.out.println(json.toJson(answer));
            });
        }
    }
}
