// Package docs runs the command blocks of the documentation, in the order of each page, and compares the output with
// what the page shows.
//
// A block is fenced as console (commands after a prompt, with the output that they show) or as sh (commands alone).
// Comments of a page state where its blocks run:
//
//	<!-- runs: WORLD -->         the command blocks from here on run in WORLD
//	<!-- not run: REASON -->     the next block does not run, for this reason
//	<!-- file: PLACE PATH -->    the next block is this file; with a plus sign before the path, its end
//	<!-- before:                 the lines up to --> are commands that run and are not shown
//
// A world is what a page needs before its first command (see the tests): nothing, a --dev server, the demo, clusters
// that are named by the prompts, or machines on which the page starts everything itself. The name before the $ of a
// prompt is the place where the command runs. Every place has one shell, so that variables last from block to block;
// all places of a page share one folder, so that a file needs no copying.
//
// Output is compared by its shape ([Compare]). A command whose shown output ends in an error of the command must fail;
// every other one must succeed. One that only reads is repeated until its output has the shape that the page shows,
// since what another cluster did arrives in its own time; all others are repeated only if the cluster was too busy. One
// that does not end by itself runs in the background.
package docs
