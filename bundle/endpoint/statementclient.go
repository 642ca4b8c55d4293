package endpoint

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/ententehq/entente/bundle/statement"
)

// statementsPath is the path of the statements, below the path of the bundle.
const statementsPath = "/statements"

// statementsURL returns the address of the statements beside a bundle: below its path, for which "/" is a short form.
func statementsURL(e Remote, from uint64) *url.URL {
	target := *e.url
	path := strings.TrimSuffix(target.Path, "/")
	if path == "" {
		path = "/bundles/" + e.td.Name()
	}
	target.Path, target.RawPath = path+statementsPath, ""
	target.RawQuery = "from=" + strconv.FormatUint(from, 10)
	return &target
}

// FetchStatements fetches the statements on a bundle from its endpoint: those with the sequence from or a higher one,
// as many as one document holds. They are parsed and not verified. An endpoint that serves none is an error that wraps
// [ErrNoStatements]; other errors are as those of [Client.Fetch].
func (c *Client) FetchStatements(ctx context.Context, e Remote, from uint64) ([]*statement.Statement, error) {
	if e.url == nil {
		return nil, fmt.Errorf("fetch statements: %w", ErrEndpoint)
	}
	bounded, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	target := statementsURL(e, from)
	var statements []*statement.Statement
	_, err := c.follow(bounded, e, http.MethodGet, target, "", func(response *http.Response) error {
		if response.StatusCode == http.StatusNotFound {
			return ErrNoStatements
		}
		body, err := readBody(response, statement.MaxListBytes)
		if err != nil {
			return err
		}
		statements, err = statement.ParseList(e.td, body)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("fetch statements of %s from %s: %w", e.td, target, c.named(ctx, err))
	}
	return statements, nil
}
