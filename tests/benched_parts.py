"""What the tiny organism's network uses, in a file of its own."""


def twice(x):
    return 2.0 * x


def scaled(x):
    return twice(x)


def truth_of(seed):
    return seed
