package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/ententehq/entente/client"
)

// Member is the connection to the member that a command calls.
type Member = client.Client

// Action is what a command does with a connection.
type Action func(ctx context.Context, member *Member, cmd *cobra.Command, args []string) error

// Call returns a RunE that connects and runs action within --timeout.
func (env *Env) Call(action Action) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), env.Timeout)
		defer cancel()
		return env.Connected(func(member *Member) error { return action(ctx, member, cmd, args) })
	}
}

// Stream returns a RunE that connects and runs action until it is interrupted, which is not an error.
func (env *Env) Stream(action Action) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		err := env.Connected(func(member *Member) error { return action(ctx, member, cmd, args) })
		if err != nil && ctx.Err() == nil {
			return err
		}
		return nil // it ended by itself, or was interrupted
	}
}

// Connected calls f with a connection to the member that the flags and the environment name, and closes it.
func (env *Env) Connected(f func(*Member) error) error {
	member, err := env.connect()
	if err != nil {
		return err
	}
	return errors.Join(f(member), member.Close())
}

// Quietly is Connected for the completion of a command line, of which only the flags are known yet. It writes nothing.
func (env *Env) Quietly(cmd *cobra.Command, f func(*Member) error) error {
	quiet := *env
	quiet.Stdout, quiet.Stderr = io.Discard, io.Discard
	quiet.readFlags(cmd)
	return quiet.Connected(f)
}

func (env *Env) connect() (*Member, error) {
	addresses, socket, err := env.target()
	if err != nil {
		return nil, err
	}
	if socket != "" {
		if err := checkSocket(socket); err != nil {
			return nil, err
		}
		return client.New(context.Background(), client.WithAdminSocket(socket), env.showState())
	}
	files := []struct{ flag, env, value string }{
		{"--cert", "ENTENTE_CERT", env.certFile},
		{"--key", "ENTENTE_KEY", env.keyFile},
		{"--bundle", "ENTENTE_BUNDLE", env.bundleFile},
	}
	for i := range files {
		if files[i].value == "" {
			files[i].value = env.Getenv(files[i].env)
		}
		if files[i].value == "" {
			return nil, Usagef(
				"%s is missing: --address needs --cert, --key and --bundle, as 'entente svid x509' writes them",
				files[i].flag,
			)
		}
	}
	return client.New(context.Background(), client.WithAddresses(addresses...),
		client.WithFiles(files[0].value, files[1].value, files[2].value), env.showState())
}

// showState writes to standard error what marks the first answer of a member that no leader has confirmed.
func (env *Env) showState() client.Option {
	var once sync.Once
	return client.WithUnconfirmed(func(revision uint64) {
		once.Do(func() { fmt.Fprintf(env.Stderr, "as of revision %d, no leader\n", revision) })
	})
}

// UseSVID makes the connection use an SVID in files. Without --bundle and ENTENTE_BUNDLE it uses bundleFile as well. It
// returns an error unless --address or ENTENTE_ADDRESS names a member.
func (env *Env) UseSVID(certFile, keyFile, bundleFile string) error {
	addresses, _, err := env.target()
	if err != nil {
		return err
	}
	if len(addresses) == 0 {
		return Usagef("--address is missing: name a member, such as eu-1.example.org:7440")
	}
	env.certFile, env.keyFile = certFile, keyFile
	if env.bundleFile == "" && env.Getenv("ENTENTE_BUNDLE") == "" {
		env.bundleFile = bundleFile
	}
	return nil
}

// target returns the addresses or the admin socket to connect to. A flag takes precedence over the environment.
func (env *Env) target() (addresses []string, socket string, err error) {
	var address string
	switch {
	case env.addressSet && env.socketSet:
		return nil, "", Usagef("--address and --socket both name a member: give one of them")
	case env.addressSet:
		address = env.address
	case env.socketSet:
		socket = env.socket
	default:
		address, socket = env.Getenv("ENTENTE_ADDRESS"), env.Getenv("ENTENTE_SOCKET")
		if address != "" && socket != "" {
			return nil, "", Usagef("ENTENTE_ADDRESS and ENTENTE_SOCKET both name a member: " +
				"unset one of them, or give --address or --socket")
		}
		if address == "" && socket == "" {
			socket = defaultSocket
		}
	}
	if address != "" || env.addressSet {
		for one := range strings.SplitSeq(address, ",") {
			if host, port, err := net.SplitHostPort(one); err != nil || host == "" || port == "" {
				return nil, "", Usagef("%q is not an address: write HOST:PORT, such as eu-1.example.org:7440", one)
			}
			addresses = append(addresses, one)
		}
		return addresses, "", nil
	}
	if socket, err = filepath.Abs(socket); err != nil {
		return nil, "", fmt.Errorf("find the admin socket: %w", err)
	}
	return nil, socket, nil
}

// checkSocket explains why an admin socket cannot be used, before a connection fails with less detail.
func checkSocket(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no admin socket %s: start the server, name the admin.sock in its data folder "+
			"with --socket or ENTENTE_SOCKET, or a member with --address", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("this user may not use the admin socket %s: "+
			"run as the server's user or root, or use --address with an SVID", path)
	case err != nil:
		return fmt.Errorf("use the admin socket %s: %w", path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is not a socket: name the admin.sock in the server's data folder", path)
	}
	return nil
}
