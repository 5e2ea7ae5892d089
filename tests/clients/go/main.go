// Prints the quantiles of a forecast. Arguments: HOST:PORT CLOSE...; the key is in the environment variable KEY.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc/metadata"

	"market-inference.example.com/go/inferencev1"
)

func main() {
	target := os.Args[1]
	var closes []float64
	for _, text := range os.Args[2:] {
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			log.Fatal(err)
		}
		closes = append(closes, value)
	}

	// docs/languages.md shows the lines from here
	conn, err := dial(target)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	client := inferencev1.NewMarketInferenceServiceClient(conn)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+os.Getenv("KEY"))
	answer, err := client.Predict(ctx, &inferencev1.PredictRequest{
		Series: []*inferencev1.Series{{Symbol: "AAPL", Values: closes}}, Horizon: 10})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.Forecasts[0].GetForecast().Quantiles)
	// to here
}
