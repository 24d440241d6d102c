// Reads tracks and users with go-redis: go run . localhost:6379 track:t1 user:ana
package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"log"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

func vector(value string) []float32 {
	floats := make([]float32, len(value)/4)
	for i := range floats {
		floats[i] = math.Float32frombits(binary.LittleEndian.Uint32([]byte(value[4*i : 4*i+4])))
	}
	return floats
}

func main() {
	ctx, out := context.Background(), json.NewEncoder(os.Stdout)
	client := redis.NewClient(&redis.Options{Addr: os.Args[1], DisableIdentity: true})
	release, err := client.HGet(ctx, "tw:live", "release").Result() // keep it for a second at most
	if err != nil {
		log.Fatal("no release is live: ", err)
	}
	pipeline, replies := client.Pipeline(), map[string]*redis.MapStringStringCmd{}
	for _, asked := range os.Args[2:] {
		kind, id, _ := strings.Cut(asked, ":")
		replies[asked] = pipeline.HGetAll(ctx, "tw:"+release+":"+kind+":{"+id+"}")
	}
	if _, err := pipeline.Exec(ctx); err != nil {
		log.Fatal(err)
	}
	for _, asked := range os.Args[2:] {
		fields := replies[asked].Val()
		answer := map[string]any{"asked": asked, "known": len(fields) > 0}
		for _, name := range []string{"status", "genre", "source"} {
			if value, there := fields[name]; there {
				answer[name] = value
			}
		}
		if value, there := fields["embedding"]; there {
			answer["embedding"] = vector(value)
		}
		if value, there := fields["confidence"]; there {
			answer["confidence"], _ = strconv.ParseFloat(value, 64)
		}
		if err := out.Encode(answer); err != nil {
			log.Fatal(err)
		}
	}
}
