// Command pebbledev is an ACME server to test with: Let's Encrypt's Pebble, with its certificate authority and its
// validation as they are, behind a TLS listener on loopback whose certificate it makes itself. Every host name resolves
// to loopback, by a DNS server of its own.
//
// It is a module of its own, so that Pebble stays out of the product's dependencies. Tests start it through the package
// bundle/acmetest.
//
// On standard output it prints one line of JSON: the URL of the directory, the root above its own listener, and the
// root of the certificates that it gives. Its log goes to standard error, and it ends when standard input closes.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"
)

// answer is the line on standard output.
type answer struct {
	Directory string `json:"directory"`
	CA        string `json:"ca"`
	Root      string `json:"root"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "pebbledev:", err)
		os.Exit(1)
	}
}

func run() error {
	listen := flag.String("listen", "127.0.0.1:0", "where the ACME server listens")
	tlsPort := flag.Int("tls-port", 443, "the port that tls-alpn-01 connects to")
	validity := flag.Uint64("validity", 3600, "lifetime of certificates in seconds")
	block := flag.String("block", "", "a host name that no certificate is given for")
	account := flag.String("external-account", "", "ID:KEY that accounts must be bound to")
	certificate := flag.String(
		"certificate",
		"",
		"a file that keeps the certificate of the listener from one start to the next",
	)
	flag.Parse()
	// No pauses, and every order is validated again. Pebble still rejects some nonces.
	for name, value := range map[string]string{"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_AUTHZREUSE": "0"} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}

	resolver, err := serveDNS()
	if err != nil {
		return err
	}
	logger := log.New(os.Stderr, "pebble ", log.LstdFlags)
	store := db.NewMemoryStore()
	authority := ca.New(logger, store, "", "ecdsa", 0, 1, map[string]ca.Profile{
		"default": {Description: "the only one", ValidityPeriod: *validity},
	})
	validation := va.New(logger, 80, *tlsPort, false, resolver, store)
	if *block != "" {
		if err := store.AddBlockedDomain(*block); err != nil {
			return err
		}
	}
	id, key, bound := strings.Cut(*account, ":")
	if bound {
		if err := store.AddExternalAccountKeyByID(id, key); err != nil {
			return err
		}
	}
	server := wfe.New(logger, store, validation, authority, []string{"pebble.letsencrypt.org"}, false, bound, 1, 1)

	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	root, config, err := kept(*certificate)
	if err != nil {
		return err
	}
	web := &http.Server{Handler: server.Handler(), TLSConfig: config, ErrorLog: logger}
	failed := make(chan error, 1)
	go func() { failed <- web.ServeTLS(listener, "", "") }()
	if err := json.NewEncoder(os.Stdout).Encode(answer{
		Directory: "https://" + listener.Addr().String() + wfe.DirectoryPath,
		CA:        root, Root: string(authority.GetRootCert(0).PEM()),
	}); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		ended <- err
	}()
	select {
	case err = <-failed:
	case err = <-ended:
	}
	return err
}

// serveDNS resolves every name to 127.0.0.1, over TCP as Pebble queries it, and returns its address.
func serveDNS() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := &dns.Server{Listener: listener, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, asked *dns.Msg) {
		reply := new(dns.Msg).SetReply(asked)
		for _, q := range asked.Question {
			if q.Qtype == dns.TypeA {
				reply.Answer = append(reply.Answer, &dns.A{
					Hdr: dns.RR_Header{
						Name:   q.Name,
						Rrtype: dns.TypeA,
						Class:  dns.ClassINET,
						Ttl:    1,
					}, A: net.IPv4(127, 0, 0, 1),
				})
			}
		}
		_ = w.WriteMsg(reply) // an error is the asker's, which has gone
	})}
	go func() { _ = server.ActivateAndServe() }()
	return listener.Addr().String(), nil
}
