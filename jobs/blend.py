"""`sclip blend` of this checkout: ray job submit --working-dir . -- python jobs/blend.py ..."""

if __name__ == "__main__":
    from checkout import run

    run(__file__)
