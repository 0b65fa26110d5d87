// SPDX-License-Identifier: AGPL-3.0-only

// Command lamp is the demo's firmware 1.0.0: a real program, so that its bill of materials comes from a real build. It
// serves its state over HTTP/2 on loopback, which links golang.org/x/net v0.10.0.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"

	"golang.org/x/net/http2"
)

const version = "1.0.0"

func main() {
	listen := flag.String("listen", "", "serve on this loopback address; empty prints the version and ends")
	flag.Parse()
	if *listen == "" {
		fmt.Println("lamp", version)
		return
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	var h2 http2.Server
	state := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "lamp", version, "on") })
	for {
		conn, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go h2.ServeConn(conn, &http2.ServeConnOpts{Handler: state})
	}
}
